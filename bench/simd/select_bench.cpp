// Wanda's score and choice of 2 of every 4 and 4 of every 8 weights, one bit each, against the read bandwidth of the
// same run.
#include "support.hpp"

#include <slimtrim/slim/sparse/wanda.hpp>

using namespace simd_bench;

namespace {

template <class T>
void select_ladder(benchmark::State& state) {
  index_t const threads = state.range(0), rows = 4096, columns = 8192;
  thread_pool pool(threads);
  simd_backend const fused(pool);
  eigen_backend const generic(pool);
  // On huge pages, as the memory of the ceiling is.
  simd::weight_arena arena;
  auto const memory_of_rows = arena.allocate(rows * columns * static_cast<index_t>(sizeof(T)));
  matrix_view<T> const W(reinterpret_cast<T*>(memory_of_rows.get()), rows, columns);
  for (index_t i = 0; i < rows * columns; ++i) W.data[i] = static_cast<T>(static_cast<float>(i % 1009) - 500.0F);
  tensor<float, 1> moments(columns);
  for (index_t j = 0; j < columns; ++j) moments(j) = static_cast<float>(1 + j % 13);
  sparsity const pattern{.keep = state.range(1), .of = 2 * state.range(1)};
  read_bandwidth memory;
  auto choose = [&](auto const& backend) {
    return [&] {
      benchmark::DoNotOptimize(wanda_mask(backend, as_const(W), as_const(moments.view()), pattern).word(0, 0));
    };
  };
  std::vector<contender> runs{
      {"read 512 MiB", [&] { memory(&pool); }}, {"generic", choose(generic)}, {"fused", choose(fused)}};
  for (auto _ : state) interleave_runs(runs, 9, threads == 1);
  double const ceiling = static_cast<double>(read_bandwidth::bytes) / median(runs[0]);
  state.counters["read GB/s"] = ceiling / 1e9;
  for (std::size_t i = 1; i < runs.size(); ++i)
    state.counters[runs[i].name + ": share of read"] =
        static_cast<double>(rows * columns) * (sizeof(T) + 0.125) / median(runs[i]) / ceiling;
}
BENCHMARK_TEMPLATE(select_ladder, float)
    ->Args({1, 2})
    ->Args({2, 2})
    ->Args({2, 4})
    ->Iterations(1)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_TEMPLATE(select_ladder, bfloat16)->Args({1, 2})->Args({2, 2})->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
