// 8 to 512 tokens times a 4-bit weight: Eigen's float product on the expanded weight, which it has in memory, against ours
// on packed ones.
#include "support.hpp"

using namespace simd_bench;

namespace {

void gemm_ladder(benchmark::State& state) {
  index_t const threads = state.range(0), tokens = state.range(1), in = 1024, out = 3584;
  thread_pool pool(threads);
  simd_backend const exact(pool), fast(pool, {.activations = activation_kind::int8});
  eigen_backend const eigen(pool);
  codes const packed(out, in, 4, 128, 1);
  auto const dense = expand(packed.view);
  auto const X = random_dense<float>(tokens, in, 2);
  tensor<float, 2> Y(tokens, out);
  weight const ready = exact.prepare({packed.view, {}});
  weight const brain = exact.prepare({as_const(random_dense<bfloat16>(out, in, 3).view()), {}});
  std::vector<contender> runs{{"eigen float", [&] { product(eigen, X.view(), as_const(dense.view()), Y.view()); }},
                              {"generic W4", [&] { product(eigen, X.view(), packed.view, Y.view()); }},
                              {"bf16", [&] { product(exact, X.view(), brain.view, Y.view()); }},
                              {"W4A16", [&] { product(exact, X.view(), ready.view, Y.view()); }},
                              {"W4A8", [&] { product(fast, X.view(), ready.view, Y.view()); }}};
  for (auto _ : state) interleave_runs(runs, 9, threads == 1);
  for (auto const& run : runs) {
    state.counters[run.name + ": GFLOP/s"] = 2e-9 * static_cast<double>(tokens * in * out) / median(run);
    state.counters[run.name + ": x of eigen float"] = speed_up(run, runs[0]);
  }
}
BENCHMARK(gemm_ladder)->ArgsProduct({{1}, {8, 16, 32, 64, 512}})->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
