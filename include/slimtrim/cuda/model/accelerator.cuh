// The device as the pipeline's accelerator: halves of a layer on activations that come from the host and go back to it,
// and the large products of Hessians and updates.
//
// Weights of the layers that were used last stay on the device, so a layer that many batches pass is uploaded once.
// Calls from several threads wait for each other.
#pragma once

#include <slimtrim/cuda/backend.cuh>
#include <slimtrim/cuda/model/accelerated_fit.cuh>
#include <slimtrim/cuda/model/held_weights.cuh>
#include <slimtrim/cuda/model/model.cuh>
#include <slimtrim/cuda/model/observed_layer.cuh>
#include <slimtrim/cuda/model/slimming_functions.cuh>
#include <slimtrim/model/accelerator.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Activations are T on the device, the stream float. Up to `held_halves` halves of layers stay there. `stream`
/// outlives this.
template <half_precision T>
class device_accelerator final : public accelerator {
  [[nodiscard]] context& on() const { return backend_.on(); }

 public:
  explicit device_accelerator(cudaStream_t stream, slimming_functions const& slimming = {}, std::size_t held_halves = 4)
      : backend_(stream), slimming_(slimming), held_(backend_.on(), held_halves) {}

  void layer(model_config const& config, decoder_layer const& weights, matrix_view<float> X, index_t window,
             layer_hooks const& hooks) override {
    run(config, weights, X, window, {.attention = true, .feed_forward = true, .residual = true}, hooks);
  }
  void attention(model_config const& config, decoder_layer const& weights, matrix_view<float> X, index_t window,
                 layer_hooks const& hooks) override {
    run(config, weights, X, window, {.attention = true}, hooks);
  }
  void feed_forward(model_config const& config, decoder_layer const& weights, matrix_view<float> X,
                    layer_hooks const& hooks) override {
    run(config, weights, X, 1, {.feed_forward = true}, hooks);
  }

  void logits(model_config const& config, model_ends const& ends, matrix_view<float const> X,
              matrix_view<float> logits) override {
    std::lock_guard const lock(mutex_);
    index_t const n = X.extent(0);
    held_head& held = held_.head(config, ends);
    auto const padded = held.shape->padded_hidden;
    auto const stream = on().template scratch_for<float>(n * padded);
    auto const normed = on().template scratch_for<T>(n * padded);
    auto const made = on().template scratch_for<float>(n * held.head.view.rows);
    device_matrix<float> const S(stream.data(), n, padded), L(made.data(), n, held.head.view.rows);
    device_matrix<T> const N(normed.data(), n, padded);
    upload_rows_of(X, S);
    add_and_normalise<T>(on(), S, {}, as_const(held.norm.view()), config.rms_epsilon, N);
    detail::multiply<T, float>(on(), held.head.view, as_const(N), L);
    download_rows_to(as_const(L), logits);
  }

  /// Pays where a float is used more than a hundred times.
  [[nodiscard]] bool gemm(float alpha, matrix_view<float const> A, matrix_view<float const> B, float beta,
                          matrix_view<float> C) override {
    index_t const n = C.extent(0), m = C.extent(1), k = A.extent(1);
    double const moved = static_cast<double>(n * k) + static_cast<double>(k * m) + 2.0 * static_cast<double>(n * m);
    if (static_cast<double>(n) * static_cast<double>(m) * static_cast<double>(k) < std::max(100 * moved, 1e9))
      return false;
    std::lock_guard const lock(mutex_);
    auto const a = on().template scratch_for<float>(n * k), b = on().template scratch_for<float>(k * m),
               c = on().template scratch_for<float>(n * m);
    device_matrix<float> const DA(a.data(), n, k), DB(b.data(), k, m), DC(c.data(), n, m);
    upload_rows_of(A, DA);
    upload_rows_of(B, DB);
    if (beta != 0.0F) upload_rows_of(as_const(C), DC);
    cuda::gemm<float, float>(on(), alpha, as_const(DA), as_const(DB), beta, DC);
    download_rows_to(as_const(DC), C);
    return true;
  }
  [[nodiscard]] bool gram_update(float alpha, matrix_view<float const> X, matrix_view<float> H) override {
    index_t const n = X.extent(0), m = X.extent(1);
    if (static_cast<double>(n) * static_cast<double>(m) < 100 * static_cast<double>(m) || m < 512) return false;
    std::lock_guard const lock(mutex_);
    auto const x = on().template scratch_for<float>(n * m), h = on().template scratch_for<float>(m * m);
    device_matrix<float> const DX(x.data(), n, m), DH(h.data(), m, m);
    upload_rows_of(X, DX);
    check(cudaMemsetAsync(DH.data, 0, sizeof(float) * static_cast<std::size_t>(m * m), on().stream()),
          "cuda::device_accelerator");
    cuda::gram_update<float, float>(on(), alpha, as_const(DX), DH);
    download_.resize(static_cast<std::size_t>(m * m));
    copy_to_host(on().stream(), DH.data, m * m, download_.data());
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < m; ++j) H(i, j) += download_[static_cast<std::size_t>(i * m + j)];
    return true;
  }

  [[nodiscard]] bool statistics(model_config const& config, decoder_layer const& weights, matrix_view<float> X,
                                layer_statistics_options const& wanted, layer_sums& sums) override {
    // Constant experts have rows of their own, and weights on inputs other rows than the layer makes here.
    if (X.extent(0) == 0 || (weights.moe && weights.moe->rule.weight_scales_input)) return false;
    if (weights.moe)
      for (expert_weights const& expert : weights.moe->experts)
        if (expert.is_novice()) return false;
    std::lock_guard const lock(mutex_);
    sum_window(config, weights, X, wanted, sums);
    return true;
  }
  [[nodiscard]] std::shared_ptr<void> fix_pages(std::span<std::byte> memory) override {
    auto fixed = std::make_shared<fixed_pages>(memory);
    return fixed->fixed() ? fixed : nullptr;
  }
  [[nodiscard]] bool adds_up() const override { return true; }
  void collect_sums() override {
    std::lock_guard const lock(mutex_);
    sums_.collect(on());
  }
  [[nodiscard]] bool add_normed_gram(std::span<float const> norm, double epsilon, matrix_view<float const> X,
                                     matrix_view<float> H) override {
    std::lock_guard const lock(mutex_);
    index_t const n = X.extent(0), width = X.extent(1);
    auto const stream = on().template scratch_for<float>(n * width);
    auto const normed = on().template scratch_for<T>(n * width);
    auto const weight = on().template scratch_for<float>(width);
    device_matrix<float> const S(stream.data(), n, width);
    device_matrix<T> const N(normed.data(), n, width);
    upload_rows_of(X, S);
    copy_to_device(on().stream(), norm.data(), width, weight.data());
    add_and_normalise<T>(on(), S, {}, device_vector<float const>(weight.data(), width), epsilon, N);
    sums_.add<T>(on(), as_const(N), n, {}, H);
    backend_.synchronise();
    return true;
  }

  /// Not where weights multiply an expert's input. Beside the layer, X and the residual, 12 in² + 32 in out bytes for the widest
  /// expert (6 in² more while systems are solved) and 4 in out for every one. Throws `system_failure` where that is not to be had.
  [[nodiscard]] bool fits_experts(decoder_layer const& weights) const override {
    return weights.dense || (weights.moe && !weights.moe->rule.weight_scales_input);
  }
  std::vector<residual_fit_report> fit_experts(model_config const& config, decoder_layer const& weights, matrix_view<float const> X,
                                               std::span<fitted_writer const> writers, matrix_view<float> residual,
                                               std::span<char const> held_out, expert_fit_options const& options) override {
    for (fitted_writer const& writer : writers) {
      expects_equal(writer.weight.extent(0), residual.extent(1), "residual_fit_experts", "outputs of an expert");
      expects_equal(static_cast<index_t>(writer.factors.size()), static_cast<index_t>(writer.tokens.size()), "residual_fit_experts", "factors");
      for (std::int32_t const t : writer.tokens)
        expects(t >= 0 && t < residual.extent(0), "residual_fit_experts", "token outside the residual");
    }
    if (!held_out.empty())
      expects_equal(static_cast<index_t>(held_out.size()), residual.extent(0), "residual_fit_experts", "marks of held-out tokens");
    expects_equal(X.extent(0), residual.extent(0), "residual_fit_experts", "rows of the stream");
    std::lock_guard const lock(mutex_);
    held_layer<T>* const half = held_.feed_forward(config, weights);
    expects(half != nullptr, "residual_fit_experts", "layer: expected one with a second half");
    held_layer<T> const& held = *half;
    device_buffer<float> const stream(X.extent(0) * held.shape->padded_hidden), lacking(residual.size());
    auto const S = stream.matrix(X.extent(0), held.shape->padded_hidden), E = lacking.matrix(residual.extent(0), residual.extent(1));
    upload_rows_of(X, S);
    upload_rows_of(as_const(residual), E);
    experts_on_device<T> side(on(), *held.shape, held.layer, as_const(S), writers, E, held_out, options.rows_a_batch);
    expert_fit_options chosen = options;
    if (chosen.fit.unit == 0) chosen.fit.unit = side.mean_square();
    auto reports = slimtrim::detail::sweep_experts(side, writers.size(), chosen);
    download_rows_to(as_const(E), residual);
    backend_.synchronise();
    return reports;
  }

  [[nodiscard]] std::optional<bool> solve_positive_definite(matrix_view<float> H, matrix_view<float> B) override {
    index_t const m = H.extent(0), p = B.extent(1);
    if (m < least_solved) return std::nullopt;
    std::lock_guard const lock(mutex_);
    auto const h = on().template scratch_for<float>(m * m), b = on().template scratch_for<float>(m * p);
    device_matrix<float> const DH(h.data(), m, m), DB(b.data(), m, p);
    upload_rows_of(as_const(H), DH);
    upload_rows_of(as_const(B), DB);
    if (!cuda::solve_positive_definite<float>(on(), DH, DB)) return false;
    download_rows_to(as_const(DB), B);
    return true;
  }
  [[nodiscard]] std::optional<bool> inverse_factor(matrix_view<float const> H, matrix_view<float> R) override {
    index_t const m = H.extent(0);
    if (m < least_solved) return std::nullopt;
    std::lock_guard const lock(mutex_);
    auto const h = on().template scratch_for<float>(m * m), r = on().template scratch_for<float>(m * m);
    device_matrix<float> const DH(h.data(), m, m), DR(r.data(), m, m);
    upload_rows_of(H, DH);
    if (!cuda::inverse_factor<float>(on(), as_const(DH), DR)) return false;
    download_rows_to(as_const(DR), R);
    return true;
  }

  [[nodiscard]] std::optional<gptq_result> gptq(matrix_view<float const> W, matrix_view<float const> hessian,
                                                gptq_options const& options, matrix_view<float const> judge) override {
    if (slimming_.gptq == nullptr) return std::nullopt;
    std::lock_guard const lock(mutex_);
    return slimming_.gptq(on(), W, hessian, options, judge);
  }
  [[nodiscard]] std::optional<quantized_matrix> awq(matrix_view<float const> W, matrix_view<float const> hessian,
                                                    std::vector<float> const& scales, awq_options const& options,
                                                    matrix_view<float const> judge, index_t* rows_kept) override {
    if (slimming_.awq == nullptr) return std::nullopt;
    std::lock_guard const lock(mutex_);
    return slimming_.awq(on(), W, hessian, scales, options, judge, rows_kept);
  }
  [[nodiscard]] std::optional<awq_scales> search_awq_scales(std::vector<slimtrim::awq_member<float>> const& members,
                                                            awq_options const& options,
                                                            std::vector<index_t> const& tied) override {
    if (slimming_.search_awq_scales == nullptr) return std::nullopt;
    std::lock_guard const lock(mutex_);
    return slimming_.search_awq_scales(on(), members, options, tied);
  }
  [[nodiscard]] std::optional<sparsegpt_result> sparsegpt(matrix_view<float const> W, matrix_view<float const> hessian,
                                                          sparsegpt_options const& options) override {
    if (slimming_.sparsegpt == nullptr) return std::nullopt;
    std::lock_guard const lock(mutex_);
    return slimming_.sparsegpt(on(), W, hessian, options);
  }

 private:
  static constexpr index_t least_solved = 512;  // columns of a system below which moving it costs as much as solving it

  // What of a layer runs, and whether the stream between its halves is told.
  struct halves {
    bool attention = false, feed_forward = false, residual = false;
  };

  void run(model_config const& config, decoder_layer const& weights, matrix_view<float> X, index_t window,
           halves const& wanted, layer_hooks const& hooks) {
    if (X.extent(0) == 0) return;
    told_later later;
    {
      std::lock_guard const lock(mutex_);
      run_locked(config, weights, X, window, wanted, hooks, later);
    }
    for (auto const& tell : later) tell();
  }

  void run_locked(model_config const& config, decoder_layer const& weights, matrix_view<float> X, index_t window,
                  halves const& wanted, layer_hooks const& hooks, told_later& later) {
    index_t const n = X.extent(0);
    held_layer<T>* const first = wanted.attention ? held_.attention(config, weights) : nullptr;
    held_layer<T>* const second = wanted.feed_forward ? held_.feed_forward(config, weights) : nullptr;
    for (held_layer<T> const* const half : {first, second})
      if (half != nullptr) workspace(*half, n);
    layer_workspace<T>& work = work_;
    if (first != nullptr || second != nullptr) upload_rows_of(X, work.X(n));
    if (first != nullptr) {
      index_t const width = config.key_value_heads * config.head_dim;
      make_room(*first, n, window, width);
      forward_attention<T>(on(), *first->shape, first->layer, n, {starts_.data(), window},
                           {keys_.data(), values_.data(), window, width}, attention_, work,
                           attention_watch<T>{on(), hooks, later, config.hidden, config.heads * config.head_dim, &sums_});
    }
    if (wanted.residual && hooks.attention_residual) {
      if (first != nullptr) {
        settle(on(), work, n);
        download_rows_to(as_const(work.X(n)), X);
      }
      auto middle = std::make_shared<tensor<float, 2>>(n, X.extent(1));
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < X.extent(1); ++j) (*middle)(i, j) = X(i, j);
      later.push_back([&hooks, middle] { hooks.attention_residual(as_const(middle->view())); });
    }
    if (second != nullptr)
      forward_feed_forward<T>(on(), *second->shape, second->layer, n, work,
                              experts_watch<T>{on(), hooks, weights, later, config.hidden, &sums_});
    if (first == nullptr && second == nullptr) return;
    if (hooks.sums != nullptr) {  // nobody sees the stream
      work.pending = false;
      backend_.synchronise();
      return;
    }
    settle(on(), work, n);
    download_rows_to(as_const(work.X(n)), X);
    backend_.synchronise();
  }

  // One window through a layer, and what statistics want of it. A layer without a second half adds zeros, and its experts' input
  // is the stream itself.
  void sum_window(model_config const& config, decoder_layer const& weights, matrix_view<float> X,
                  layer_statistics_options const& wanted, layer_sums& sums) {
    index_t const n = X.extent(0), hidden = config.hidden;
    layer_shape const& shape = held_.shape_of(config);
    held_layer<T>* const first = held_.attention(config, weights);
    held_layer<T>* const second = held_.feed_forward(config, weights);
    for (held_layer<T> const* const half : {first, second})
      if (half != nullptr) workspace(*half, n);
    index_t const padded = shape.padded_hidden, size = n * padded;
    auto const memory = on().template scratch_for<float>(5 * size);
    auto const part = [&](index_t i) { return device_matrix<float>(memory.data() + i * size, n, padded); };
    auto const in = part(0), residual = part(1), moe_input = part(2), moe_output = part(3), out = part(4);
    upload_rows_of(X, in);
    auto const copy = [&](device_matrix<float> from, device_matrix<float> to) {
      copy_elements<float, float>(on(), as_const(from), to);
    };
    layer_hooks const none{};
    told_later later;
    layer_workspace<T>& work = work_;
    copy(in, first != nullptr || second != nullptr ? work.X(n) : out);
    if (first != nullptr) {
      index_t const width = config.key_value_heads * config.head_dim;
      make_room(*first, n, n, width);
      forward_attention<T>(on(), *first->shape, first->layer, n, {starts_.data(), n},
                           {keys_.data(), values_.data(), n, width}, attention_, work);
      settle(on(), work, n);
      copy(work.X(n), residual);
    } else {
      copy(in, residual);
    }
    routing_.seen = false;
    if (second != nullptr) {
      experts_watch<T> watch{on(), none, weights, later, hidden};
      watch.routing = &routing_;
      forward_feed_forward<T>(on(), *second->shape, second->layer, n, work, watch);
      copy_elements<T, float>(on(), as_const(work.N(n)), moe_input);
      copy(work.Y(n), moe_output);
      settle(on(), work, n);
      copy(work.X(n), out);
    } else {
      copy(residual, moe_input);
      copy(residual, out);
      for_each_element(on(), n, padded, false, detail::set_element{0.0F, moe_output});
    }
    auto const change = on().template scratch_for<double>(n);
    auto const seen = [&](device_matrix<float> x) { return columns(as_const(x), 0, hidden); };
    compare_rows(on(), seen(in), seen(residual), seen(moe_input), seen(moe_output), seen(out), change.data(),
                 sums.similarity);
    if (routing_.seen)
      sum_experts<T>(on(), routing_.routing, second->layer.routed->view, work.routed,
                     device_vector<double const>(change.data(), n), wanted, sums);
    download_rows_to(as_const(out), X);
    backend_.synchronise();
  }

  // Keys and values of the windows, and what attention needs besides them.
  void make_room(held_layer<T> const& held, index_t n, index_t window, index_t width) {
    index_t const sequences = n / window;
    if (keys_.size() < n * width) {
      keys_ = device_buffer<T>(n * width);
      values_ = device_buffer<T>(n * width);
    }
    if (starts_.size() < sequences) {
      starts_ = device_buffer<std::int32_t>(sequences);
      check(cudaMemsetAsync(starts_.data(), 0, 4 * static_cast<std::size_t>(sequences), on().stream()),
            "cuda::device_accelerator");
    }
    head_layout const& heads = held.shape->heads;
    if (window == 1 &&
        (attention_.sequences < sequences || attention_.heads != heads.heads || attention_.head_dim != heads.head_dim))
      attention_ = attention_workspace(on(), sequences, heads, 1);
  }

  layer_workspace<T>& workspace(held_layer<T> const& held, index_t n) {
    layer_extents most = extents_;
    most.include(held.layer);
    bool const larger = most.experts > extents_.experts || most.top_k > extents_.top_k || most.width > extents_.width ||
                        most.dense_width > extents_.dense_width;
    if (larger || n > work_.tokens || held.shape != work_shape_) {
      extents_ = most;
      index_t const tokens = std::max(n, work_.tokens);
      work_ = layer_workspace<T>();
      work_ = layer_workspace<T>(on(), *held.shape, extents_, tokens);
      work_shape_ = held.shape;
    }
    work_.pending = false;
    return work_;
  }

  // Rows of the host into the first columns of `to`, zeros behind them.
  void upload_rows_of(matrix_view<float const> from, device_matrix<float> to) {
    index_t const n = from.extent(0), m = from.extent(1);
    float const* data = from.data;
    if (!from.contiguous() || to.extent(1) != m) {
      staged_.assign(static_cast<std::size_t>(n * to.extent(1)), 0.0F);
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < m; ++j) staged_[static_cast<std::size_t>(i * to.extent(1) + j)] = from(i, j);
      data = staged_.data();
    }
    copy_to_device(on().stream(), data, n * to.extent(1), to.data);
    check(cudaStreamSynchronize(on().stream()), "cuda::device_accelerator");  // the staging memory is used again
  }
  // The first columns of `from` to the host.
  void download_rows_to(device_matrix<float const> from, matrix_view<float> to) {
    index_t const n = to.extent(0), m = to.extent(1);
    if (to.contiguous() && from.extent(1) == m) {
      copy_to_host(on().stream(), from.data, n * m, to.data);
      return;
    }
    download_.resize(static_cast<std::size_t>(n * from.extent(1)));
    copy_to_host(on().stream(), from.data, n * from.extent(1), download_.data());
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < m; ++j) to(i, j) = download_[static_cast<std::size_t>(i * from.extent(1) + j)];
  }

  std::mutex mutex_;
  cuda_backend backend_;
  slimming_functions slimming_;
  held_weights<T> held_;
  layer_extents extents_{};
  layer_workspace<T> work_{};
  layer_shape const* work_shape_ = nullptr;
  attention_workspace attention_{};
  device_sums sums_{};
  routing_on_device routing_{};
  device_buffer<T> keys_{}, values_{};
  device_buffer<std::int32_t> starts_{};
  std::vector<float> staged_{}, download_{};
};

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
