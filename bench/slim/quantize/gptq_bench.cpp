// GPTQ of one expert (gate and up 3584 x 1024, down 1024 x 3584) against the time that its bare operations take at the rate of
// sgemm in the same run. Goal: within 2.5x. Operations: per matrix out in² for the sweep, (2/3) in³ for the factor; with
// BM_gptq_expert/hessians also tokens in² for each Hessian.
#include <slimtrim/slim/quantize/gptq.hpp>

#include <benchmark/benchmark.h>

#include <slim/support.hpp>

namespace {

using namespace slimtrim;
using namespace slimtrim_bench;

constexpr index_t hidden = 1024, intermediate = 3584, tokens = 4096;

auto rate(double operations) {
  return benchmark::Counter(operations, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

void BM_sgemm(benchmark::State& state) {
  auto const A = weights<float>(2048, 2048), B = weights<float>(2048, 2048);
  matrix<float> C(2048, 2048);
  for (auto _ : state) {
    eigen_backend(pool()).gemm(1.0F, as_const(A.view()), as_const(B.view()), 0.0F, C.view());
    benchmark::DoNotOptimize(C(0, 0));
  }
  state.counters["flops"] = rate(2.0 * 2048 * 2048 * 2048);
}

double operations_of(double out, double in) { return out * in * in + 2.0 / 3.0 * in * in * in; }

void BM_gptq_expert(benchmark::State& state) {
  bool const with_hessians = state.range(0) != 0;
  eigen_backend const backend(pool());
  auto const gate = weights<bfloat16>(intermediate, hidden), up = weights<bfloat16>(intermediate, hidden);
  auto const down = weights<bfloat16>(hidden, intermediate);
  auto const X = weights<float>(tokens, hidden), Z = weights<float>(tokens, intermediate);
  auto H = hessian(tokens, hidden), K = hessian(tokens, intermediate);
  for (auto _ : state) {
    if (with_hessians) {
      H.fill(0.0F);
      K.fill(0.0F);
      backend.gram_update(1.0F, as_const(X.view()), H.view());
      backend.gram_update(1.0F, as_const(Z.view()), K.view());
    }
    benchmark::DoNotOptimize(gptq(backend, gate, as_const(H.view())).report.error);
    benchmark::DoNotOptimize(gptq(backend, up, as_const(H.view())).report.error);
    benchmark::DoNotOptimize(gptq(backend, down, as_const(K.view())).report.error);
  }
  // Gate and up share H, but each call factors it: counted once, as the bare operations need it.
  double operations = operations_of(2.0 * intermediate, hidden) + operations_of(hidden, intermediate);
  if (with_hessians) operations += double(tokens) * (double(hidden) * hidden + double(intermediate) * intermediate);
  state.counters["flops"] = rate(operations);
}

void BM_factor(benchmark::State& state) {
  auto const H = hessian(tokens, intermediate);
  for (auto _ : state)
    benchmark::DoNotOptimize(prepare_hessian(eigen_backend(pool()), as_const(H.view()), column_order::natural).damp);
  state.counters["flops"] = rate(2.0 / 3.0 * intermediate * intermediate * intermediate);
}

BENCHMARK(BM_sgemm)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(BM_gptq_expert)->Arg(0)->Arg(1)->ArgName("hessians")->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(BM_factor)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
