// The baseline: bfloat16 weights in rows, one cuBLAS call a matrix, a loop over the experts that asks the host how many
// tokens each got, no graph. Attention and norms are our own kernels, so this is kinder to the baseline than an eager
// framework is.
#pragma once

#include "random_model.cuh"

#include <slimtrim/cuda/sample.cuh>

namespace paper_table {

namespace kernels {

static __global__ void gather(device_matrix<element const> X, std::int32_t const* pairs, int slots, element* to) {
  index_t const token = pairs[blockIdx.x] / slots;
  for (index_t j = threadIdx.x; j < X.extent(1); j += blockDim.x) to[blockIdx.x * X.extent(1) + j] = X(token, j);
}
static __global__ void gate_rows(element const* gate, element const* up, element* to, index_t count) {
  index_t const i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) to[i] = element(cuda::gated(static_cast<float>(gate[i]), static_cast<float>(up[i])));
}
static __global__ void add_rows(element const* from, std::int32_t const* pairs, int slots, float const* factors,
                                device_matrix<float> Y) {
  int const pair = pairs != nullptr ? pairs[blockIdx.x] : static_cast<int>(blockIdx.x);
  float const factor = factors != nullptr ? factors[pair] : 1.0F;
  for (index_t j = threadIdx.x; j < Y.extent(1); j += blockDim.x)
    Y(pair / slots, j) += factor * static_cast<float>(from[blockIdx.x * Y.extent(1) + j]);
}

}  // namespace kernels

struct eager_mlp {
  cuda::device_buffer<element> gate, up, down;
  index_t width = 0;
};

struct eager_layer {
  cuda::device_buffer<element> query, key, value, output, router;
  cuda::device_buffer<float> attention_norm, feed_forward_norm;
  std::vector<eager_mlp> experts;
  std::optional<eager_mlp> every_token;
};

class eager_model {
 public:
  eager_model(cuda_bench::session& s, model_config of, index_t slab)
      : s_(s), config(std::move(of)), shape_(s.on(), config), slab_(slab) {
    random_maker make(s, false);
    auto const mlp = [&](index_t width) {
      return eager_mlp{make.halves(width * config.hidden), make.halves(width * config.hidden),
                       make.halves(config.hidden * width), width};
    };
    index_t const q = config.heads * config.head_dim, k = config.key_value_heads * config.head_dim;
    for (index_t i = 0; i < slab; ++i) {
      layer_config const& wanted = config.layer(i);
      eager_layer layer;
      layer.query = make.halves(q * config.hidden);
      layer.key = make.halves(k * config.hidden);
      layer.value = make.halves(k * config.hidden);
      layer.output = make.halves(config.hidden * q);
      layer.attention_norm = make.ones(config.hidden);
      layer.feed_forward_norm = make.ones(config.hidden);
      if (wanted.feed_forward == feed_forward_kind::dense) layer.every_token = mlp(wanted.intermediate);
      if (wanted.shared_intermediate > 0) layer.every_token = mlp(wanted.shared_intermediate);
      for (index_t e = 0; e < wanted.experts; ++e) layer.experts.push_back(mlp(wanted.intermediate));
      if (wanted.experts > 0) layer.router = make.halves(wanted.experts * config.hidden);
      layers_.push_back(std::move(layer));
    }
    embedding_ = make.halves(config.vocabulary * config.hidden, 1.0F);
    head_ = make.halves(config.vocabulary * config.hidden);
    norm_ = make.ones(config.hidden);
  }

  /// Caches and scratch for `sequences` texts of up to `capacity` tokens, `tokens` at a time.
  void make_room(index_t sequences, index_t capacity, index_t tokens) {
    index_t const width = config.key_value_heads * config.head_dim;
    keys_.clear();
    values_.clear();
    for (index_t i = 0; i < config.layer_count(); ++i) {
      keys_.emplace_back(sequences * capacity * width);
      values_.emplace_back(sequences * capacity * width);
    }
    capacity_ = capacity;
    cuda::layer_extents most;
    index_t widest = 0;
    for (layer_config const& each : config.layers) {
      most.experts = std::max(most.experts, each.experts);
      most.width = std::max(most.width, each.experts > 0 ? each.intermediate : index_t{0});
      widest = std::max({widest, each.experts > 0 ? each.intermediate : index_t{0}, each.shared_intermediate,
                         each.feed_forward == feed_forward_kind::dense ? each.intermediate : index_t{0}});
    }
    most.top_k = config.top_k;
    work_ = cuda::layer_workspace<element>(s_.on(), shape_, most, tokens);
    attention_ = cuda::attention_workspace(s_.on(), sequences, shape_.heads, capacity);
    index_t const pairs = tokens * config.top_k;
    gathered_ = cuda::device_buffer<element>(pairs * config.hidden);
    gate_ = cuda::device_buffer<element>(pairs * widest);
    up_ = cuda::device_buffer<element>(pairs * widest);
    out_ = cuda::device_buffer<element>(pairs * config.hidden);
    logits_ = cuda::device_buffer<float>(sequences * config.vocabulary);
    step_ = cuda::device_buffer<std::int32_t>(1);
    cuda::check(cudaMemsetAsync(step_.data(), 0, 4, s_.stream), "eager_model");
  }

  /// Zeros in the caches, for steps whose time alone matters.
  void clear_cache() {
    for (auto const* const all : {&keys_, &values_})
      for (auto const& each : *all)
        cuda::check(cudaMemsetAsync(each.data(), 0, sizeof(element) * static_cast<std::size_t>(each.size()), s_.stream),
                    "eager_model");
  }

  /// Takes `n` tokens through the model and leaves the next token of every sequence in `tokens`. of.rows a sequence.
  void forward(std::int32_t* tokens, index_t n, cuda::sequence_rows of) {
    auto& on = s_.on();
    auto const X = work_.X(n), Y = work_.Y(n);
    auto const N = work_.N(n);
    cuda::embed<element>(on, as_const(embedding_.matrix(config.vocabulary, config.hidden)), tokens, X);
    device_matrix<float const> added;
    index_t const q = config.heads * config.head_dim, k = config.key_value_heads * config.head_dim;
    for (index_t i = 0; i < config.layer_count(); ++i) {
      eager_layer const& w = layers_[static_cast<std::size_t>(stand_in(config, slab_, i))];
      cuda::add_and_normalise<element>(on, X, added, as_const(w.attention_norm.view()), config.rms_epsilon, N);
      auto const made = work_.made.matrix(n, shape_.made_columns);
      product(N.data, n, w.query, q, config.hidden, made.data, shape_.made_columns);
      product(N.data, n, w.key, k, config.hidden, made.data + shape_.heads.key_column, shape_.made_columns);
      product(N.data, n, w.value, k, config.hidden, made.data + shape_.heads.value_column, shape_.made_columns);
      auto const Z = work_.attended.matrix(n, q);
      cuda::cache_view<element> const cache{keys_[static_cast<std::size_t>(i)].data(),
                                            values_[static_cast<std::size_t>(i)].data(), capacity_, k};
      if (of.rows == 1) {
        cuda::attention_few<element>(on, shape_.heads, as_const(made), shape_.frequencies.data(), cache, of.first,
                                     attention_, Z);
      } else {
        auto const Q = work_.queries.matrix(n, q);
        cuda::rotate_and_append<element>(on, shape_.heads, as_const(made), shape_.frequencies.data(), of, Q, cache);
        cuda::attention_many<element>(on, shape_.heads, as_const(Q), cache, of, Z);
      }
      product(Z.data, n, w.output, config.hidden, q, Y.data, config.hidden);
      cuda::add_and_normalise<element>(on, X, as_const(Y), as_const(w.feed_forward_norm.view()), config.rms_epsilon, N);
      cuda::check(cudaMemsetAsync(Y.data, 0, sizeof(float) * static_cast<std::size_t>(Y.size()), s_.stream),
                  "eager_model");
      if (w.every_token) mlp(*w.every_token, N.data, n, nullptr, 1, nullptr, Y);
      if (!w.experts.empty()) experts(w, config.layer_rule(i), as_const(N), Y);
      added = as_const(Y);
    }
    index_t const sequences = n / of.rows;
    cuda::add_and_normalise<element>(on, X, added, as_const(norm_.view()), config.rms_epsilon, N);
    for (index_t s = 0; s < sequences; ++s)
      if (of.rows > 1 || s == 0)  // one call for all where rows follow one another
        product(N.data + ((s + 1) * of.rows - 1) * config.hidden, of.rows > 1 ? 1 : sequences, head_, config.vocabulary,
                config.hidden, logits_.data() + s * config.vocabulary, config.vocabulary);
    cuda::draw_tokens(on, as_const(logits_.matrix(sequences, config.vocabulary)), {}, step_.data(), tokens);
  }

  [[nodiscard]] double bytes() const {
    double sum = 2.0 * 2 * static_cast<double>(config.vocabulary) * static_cast<double>(config.hidden);
    for (index_t i = 0; i < config.layer_count(); ++i) sum += layer_bytes(config, i, false);
    return sum;
  }

 private:
  template <class Result>
  void product(element const* x, index_t tokens, cuda::device_buffer<element> const& w, index_t out, index_t in,
               Result* y, index_t pitch) {
    float const one = 1, zero = 0;
    constexpr cudaDataType type = std::is_same_v<Result, float> ? CUDA_R_32F : CUDA_R_16BF;
    cuda::check(cublasGemmEx(s_.on().blas(), CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(out), static_cast<int>(tokens),
                             static_cast<int>(in), &one, w.data(), CUDA_R_16BF, static_cast<int>(in), x, CUDA_R_16BF,
                             static_cast<int>(in), &zero, y, type, static_cast<int>(pitch), CUBLAS_COMPUTE_32F,
                             CUBLAS_GEMM_DEFAULT),
                "eager_model");
  }
  void mlp(eager_mlp const& w, element const* x, index_t count, std::int32_t const* pairs, int slots,
           float const* factors, device_matrix<float> Y) {
    product(x, count, w.gate, w.width, config.hidden, gate_.data(), w.width);
    product(x, count, w.up, w.width, config.hidden, up_.data(), w.width);
    cuda::launch(s_.stream, {dim3(static_cast<unsigned>(ceil_div(count * w.width, 256))), 256, 0}, kernels::gate_rows,
                 gate_.data(), up_.data(), gate_.data(), count * w.width);
    product(gate_.data(), count, w.down, config.hidden, w.width, out_.data(), config.hidden);
    cuda::launch(s_.stream, {dim3(static_cast<unsigned>(count)), 256, 0}, kernels::add_rows, out_.data(), pairs, slots,
                 factors, Y);
  }
  void experts(eager_layer const& w, routing_rule const& rule, device_matrix<element const> X, device_matrix<float> Y) {
    index_t const n = X.extent(0), k = rule.top_k, count = static_cast<index_t>(w.experts.size());
    auto const& room = work_.routed;
    device_matrix<std::int32_t> const indices(room.indices.data(), n, k);
    cuda::route<element>(s_.on(), X, as_const(w.router.matrix(count, config.hidden)), rule, {},
                         {indices, device_matrix<float>(room.factors.data(), n, k), {}}, {});
    cuda::group_pairs(s_.on(), as_const(indices), count, room.groups());
    std::vector<std::int32_t> offsets(static_cast<std::size_t>(count) + 1);
    cuda::copy_to_host(s_.stream, room.groups().offsets, count + 1, offsets.data());
    for (std::size_t e = 0; e < w.experts.size(); ++e) {
      index_t const tokens = offsets[e + 1] - offsets[e];
      if (tokens == 0) continue;
      std::int32_t const* const pairs = room.groups().pairs + offsets[e];
      cuda::launch(s_.stream, {dim3(static_cast<unsigned>(tokens)), 256, 0}, kernels::gather, X, pairs,
                   static_cast<int>(k), gathered_.data());
      mlp(w.experts[e], gathered_.data(), tokens, pairs, static_cast<int>(k), room.factors.data(), Y);
    }
  }

  cuda_bench::session& s_;

 public:
  model_config config;

 private:
  cuda::layer_shape shape_;
  index_t slab_;
  std::vector<eager_layer> layers_;
  cuda::device_buffer<element> embedding_, head_;
  cuda::device_buffer<float> norm_;
  std::vector<cuda::device_buffer<element>> keys_, values_;
  index_t capacity_ = 0;
  cuda::layer_workspace<element> work_;
  cuda::attention_workspace attention_;
  cuda::device_buffer<element> gathered_, gate_, up_, out_;
  cuda::device_buffer<float> logits_;
  cuda::device_buffer<std::int32_t> step_;
};

}  // namespace paper_table
