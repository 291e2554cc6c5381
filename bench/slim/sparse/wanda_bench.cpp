// Wanda's score and selection against a streaming read in the same run (BM_stream of rtn_bench). Goal: N:M at 50 % of it; unstructured
// selection in elements per second, reported.
#include <slimtrim/slim/sparse/wanda.hpp>

#include <benchmark/benchmark.h>

#include <slim/support.hpp>

namespace {

using namespace slimtrim;
using namespace slimtrim_bench;

template <class T>
void BM_wanda(benchmark::State& state) {
  auto const W = weights<T>(4096, 8192);
  buffer<float> moments(8192);
  for (index_t j = 0; j < 8192; ++j) moments[j] = static_cast<float>(1 + j % 13);
  sparsity pattern;
  if (state.range(0) != 0) pattern = {.keep = state.range(0), .of = 2 * state.range(0)};
  for (auto _ : state)
    benchmark::DoNotOptimize(
        wanda_mask(eigen_backend(pool()), W, vector_view<float const>(moments.data(), 8192), pattern).word(0, 0));
  state.SetBytesProcessed(state.iterations() * W.view().size() * static_cast<std::int64_t>(sizeof(T)));
  state.SetItemsProcessed(state.iterations() * W.view().size());
}

BENCHMARK_TEMPLATE(BM_wanda, float)->Arg(2)->Arg(4)->Arg(0)->ArgName("keep")->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_TEMPLATE(BM_wanda, bfloat16)->Arg(2)->Arg(0)->ArgName("keep")->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
