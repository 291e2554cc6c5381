// The mixture-of-experts layer of Mixtral-8x7B, route to sum: 4-bit and bfloat16 experts of ours, and a loop over experts
// that waits for the host and calls cuBLAS, as eager frameworks do. Layers rotate; the distinct experts met are printed.
#include "support.cuh"

#include <slimtrim/cuda/moe_layer.cuh>

#include <memory>
#include <set>

namespace cuda_bench {

namespace {

constexpr index_t experts = 8;

struct layer {
  index_t hidden, width;
  std::vector<std::unique_ptr<random_tiles>> gate_up, down;
  cuda::device_buffer<cuda::tile_weight_view> views;
  cuda::device_buffer<bfloat16> router;
  cuda::moe_layer_view<bfloat16> view{};

  layer(session& s, cuda::tile_kind kind, std::uint32_t seed)
      : hidden(s.size(4096)), width(s.size(14336)), views(2 * experts), router(random_halves(s, experts * hidden, 0.03F, seed)) {
    std::vector<cuda::tile_weight_view> all(2 * experts);
    for (index_t e = 0; e < experts; ++e) {
      auto const number = static_cast<std::uint32_t>(e);
      gate_up.push_back(std::make_unique<random_tiles>(s, 2 * width, hidden, kind, seed + 10 * number));
      down.push_back(std::make_unique<random_tiles>(s, hidden, width, kind, seed + 10 * number + 5));
      all[static_cast<std::size_t>(e)] = gate_up.back()->view;
      all[static_cast<std::size_t>(experts + e)] = down.back()->view;
    }
    cuda::copy_to_device(s.stream, all.data(), 2 * experts, views.data());
    view.experts = experts;
    view.hidden = hidden;
    view.width = width;
    view.router = reading(router, experts, hidden);
    view.gate_up = views.data();
    view.down = views.data() + experts;
  }
  [[nodiscard]] double expert_bytes() const {
    return static_cast<double>(gate_up[0]->view.bytes() + down[0]->view.bytes());
  }
};

__global__ void gather(device_matrix<bfloat16 const> X, std::int32_t const* pairs, int slots, bfloat16* to) {
  index_t const token = pairs[blockIdx.x] / slots;
  for (index_t j = threadIdx.x; j < X.extent(1); j += blockDim.x) to[blockIdx.x * X.extent(1) + j] = X(token, j);
}
__global__ void gate_rows(bfloat16 const* gate, bfloat16 const* up, bfloat16* to, index_t count) {
  index_t const i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) to[i] = bfloat16(cuda::gated(static_cast<float>(gate[i]), static_cast<float>(up[i])));
}
__global__ void scatter(bfloat16 const* from, std::int32_t const* pairs, int slots, float const* factors, device_matrix<float> Y) {
  int const pair = pairs[blockIdx.x];
  for (index_t j = threadIdx.x; j < Y.extent(1); j += blockDim.x)
    Y(pair / slots, j) += factors[pair] * static_cast<float>(from[blockIdx.x * Y.extent(1) + j]);
}

// One cuBLAS call with bfloat16 in and out, as a framework makes it.
void product(session& s, bfloat16 const* x, index_t tokens, bfloat16 const* w, index_t out, index_t in, bfloat16* y) {
  float const one = 1, zero = 0;
  cuda::check(cublasGemmEx(s.on().blas(), CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(out), static_cast<int>(tokens), static_cast<int>(in), &one,
                           w, CUDA_R_16BF, static_cast<int>(in), x, CUDA_R_16BF, static_cast<int>(in), &zero, y, CUDA_R_16BF,
                           static_cast<int>(out), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
              "product");
}

struct eager_layer {
  index_t hidden, width;
  std::vector<cuda::device_buffer<bfloat16>> gate, up, down;
  cuda::device_buffer<bfloat16> gathered, gate_out, up_out, inner, out;
  eager_layer(session& s, index_t pairs)
      : hidden(s.size(4096)), width(s.size(14336)), gathered(pairs * hidden), gate_out(pairs * width), up_out(pairs * width), inner(pairs * width), out(pairs * hidden) {
    for (std::uint32_t e = 0; e < experts; ++e) {
      gate.push_back(random_halves(s, width * hidden, 0.03F, 1000 + e));
      up.push_back(random_halves(s, width * hidden, 0.03F, 2000 + e));
      down.push_back(random_halves(s, hidden * width, 0.03F, 3000 + e));
    }
  }
  void operator()(session& s, layer const& of, device_matrix<bfloat16 const> X, device_matrix<float> Y, cuda::moe_workspace<bfloat16> const& work) {
    index_t const tokens = X.extent(0), k = of.view.rule.top_k;
    device_matrix<std::int32_t> const indices(work.indices.data(), tokens, k);
    cuda::route<bfloat16>(s.on(), X, of.view.router, of.view.rule, {}, {indices, device_matrix<float>(work.factors.data(), tokens, k), {}}, {});
    auto const groups = work.groups();
    cuda::group_pairs(s.on(), as_const(indices), experts, groups);
    std::vector<std::int32_t> offsets(experts + 1);
    cuda::copy_to_host(s.stream, groups.offsets, experts + 1, offsets.data());
    cuda::check(cudaMemsetAsync(Y.data, 0, sizeof(float) * static_cast<std::size_t>(Y.size()), s.stream), "zero");
    for (std::size_t e = 0; e < experts; ++e) {
      index_t const count = offsets[e + 1] - offsets[e];
      if (count == 0) continue;
      std::int32_t const* const pairs = groups.pairs + offsets[e];
      auto const blocks = dim3(static_cast<unsigned>(count));
      cuda::launch(s.stream, {blocks, 256, 0}, gather, X, pairs, static_cast<int>(k), gathered.data());
      product(s, gathered.data(), count, gate[e].data(), width, hidden, gate_out.data());
      product(s, gathered.data(), count, up[e].data(), width, hidden, up_out.data());
      cuda::launch(s.stream, {dim3(static_cast<unsigned>(ceil_div(count * width, 256))), 256, 0}, gate_rows, gate_out.data(), up_out.data(),
                   inner.data(), count * width);
      product(s, inner.data(), count, down[e].data(), hidden, width, out.data());
      cuda::launch(s.stream, {blocks, 256, 0}, scatter, out.data(), pairs, static_cast<int>(k), work.factors.data(), Y);
    }
  }
};

}  // namespace

void bench_moe_layer(session& s) {
  constexpr auto codes = cuda::tile_kind::codes4, halves = cuda::tile_kind::bfloat16;
  int const copies = s.copies(4), dense_copies = s.copies(2);
  index_t const hidden = s.size(4096), width = s.size(14336);
  std::vector<std::unique_ptr<layer>> w, dense;
  for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(copies); ++i) w.push_back(std::make_unique<layer>(s, codes, 10000 * (i + 1)));
  for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(dense_copies); ++i) dense.push_back(std::make_unique<layer>(s, halves, 90000 * (i + 1)));
  index_t const most = s.size(4096);
  cuda::moe_workspace<bfloat16> const work(s.on(), most, 2, experts, width, hidden);
  eager_layer eager(s, most * 2);
  double routing_share = 0;
  for (index_t tokens : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096}) {
    if (s.skips(tokens)) continue;
    auto const memory = random_halves(s, tokens * hidden, 1, 7);
    auto const X = reading(memory, tokens, hidden);
    cuda::device_buffer<float> out(tokens * hidden);
    auto const Y = out.matrix(tokens, hidden);
    auto const run = [&]<cuda::tile_kind Kind>(auto const& all, int i, cuda::moe_path path) {
      cuda::moe_layer<bfloat16, Kind, float>(s.on(), all[static_cast<std::size_t>(i)]->view, X, Y, work, false, path);
    };
    // How many experts these tokens meet, over the layers that rotate.
    double distinct = 0;
    for (int i = 0; i < copies; ++i) {
      run.template operator()<codes>(w, i, cuda::moe_path::automatic);
      std::vector<std::int32_t> indices(static_cast<std::size_t>(2 * tokens));
      cuda::copy_to_host(s.stream, work.indices.data(), 2 * tokens, indices.data());
      distinct += static_cast<double>(std::set<std::int32_t>(indices.begin(), indices.end()).size()) / copies;
    }
    auto const name = [&](char const* what) { return std::string("MoE ") + what + ", " + std::to_string(tokens) + " tokens"; };
    double const operations = 2.0 * 2.0 * static_cast<double>(tokens) * 3.0 * static_cast<double>(hidden * width);
    double const unfused = time_calls(s, 2, [&](int) { eager(s, *w[0], X, Y, work); });
    s.add({name("eager loop bf16"), unfused, {{"experts", distinct}}});
    auto const line = [&](char const* what, double time, double expert_bytes, double against) {
      s.add({name(what), time,
             {{"of bandwidth", s.bandwidth_share(distinct * expert_bytes, time)}, {"of cuBLAS rate", s.rate_share(operations, time)},
              {"x of fused bf16", against / time}, {"x of eager", unfused / time}}});
    };
    double const fused = time_graph(s, dense_copies, [&](int i) { run.template operator()<halves>(dense, i, cuda::moe_path::automatic); });
    line("fused bf16", fused, dense[0]->expert_bytes(), fused);
    double const chosen =
        time_graph(s, copies, [&](int i) { run.template operator()<codes>(w, i, cuda::moe_path::automatic); });
    line("fused 4-bit", chosen, w[0]->expert_bytes(), fused);
    double const share = s.bandwidth_share(distinct * w[0]->expert_bytes(), chosen);
    struct judged {
      index_t tokens;
      double must_share, aim_share, must_times, aim_times;
    };
    for (judged const& of : {judged{1, 0.60, 0.75, 2.8, 3.4}, judged{8, 0.75, 0.88, 3.0, 3.6},
                             judged{32, 0.65, 0.80, 2.8, 3.4}, judged{128, 0.35, 0.55, 2.0, 3.0}}) {
      if (of.tokens != tokens) continue;
      s.judge("MoE layer 4-bit, " + std::to_string(tokens) + " tokens: share of bandwidth", share, of.must_share,
              of.aim_share);
      s.judge("MoE layer 4-bit, " + std::to_string(tokens) + " tokens: x of our fused bf16", fused / chosen,
              of.must_times, of.aim_times);
    }
    if (tokens == 4096)
      s.judge("MoE layer 4-bit, prefill of 4096 tokens: share of the cuBLAS rate", s.rate_share(operations, chosen),
              0.30, 0.55);
    if (tokens <= 128)
      line("fused 4-bit, few", time_graph(s, copies, [&](int i) { run.template operator()<codes>(w, i, cuda::moe_path::few); }), w[0]->expert_bytes(), fused);
    if (tokens >= 128)
      line("fused 4-bit, wgmma",
           time_graph(s, copies, [&](int i) { run.template operator()<codes>(w, i, cuda::moe_path::warpgroup); }),
           w[0]->expert_bytes(), fused);
    if (tokens >= 16)
      line("fused 4-bit, many", time_graph(s, copies, [&](int i) { run.template operator()<codes>(w, i, cuda::moe_path::many); }), w[0]->expert_bytes(), fused);
    double const routing = time_graph(s, copies, [&](int i) {
      auto const& view = w[static_cast<std::size_t>(i)]->view;
      device_matrix<std::int32_t> const indices(work.indices.data(), tokens, 2);
      cuda::route<bfloat16>(s.on(), X, view.router, view.rule, {}, {indices, device_matrix<float>(work.factors.data(), tokens, 2), {}}, {});
      cuda::group_pairs(s.on(), as_const(indices), experts, work.groups());
    });
    s.add({name("routing and grouping"), routing, {{"of the layer", routing / chosen}}});
    if (tokens <= 32) routing_share = std::max(routing_share, routing / chosen);
  }
  s.judge("routing and grouping, greatest share of the layer up to 32 tokens", routing_share, 0.12, 0.05, true);
  s.backend.synchronise();
}

}  // namespace cuda_bench
