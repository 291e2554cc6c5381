// Cosines of the rows of two matrices beyond the caches, against the read bandwidth of the same run.
#include "support.hpp"

#include <slimtrim/similarity/cosine.hpp>

using namespace simd_bench;

namespace {

void cosine_ladder(benchmark::State& state) {
  index_t const threads = state.range(0), rows = 4096, columns = 4096;
  thread_pool pool(threads);
  simd_backend const fused(pool);
  eigen_backend const eigen(pool);
  // On huge pages, as the memory of the ceiling is.
  simd::weight_arena arena;
  auto const memory_of_rows = arena.allocate(2 * rows * columns * 4);
  auto* const values = reinterpret_cast<float*>(memory_of_rows.get());
  matrix_view<float> const X(values, rows, columns), Y(values + rows * columns, rows, columns);
  for (index_t i = 0; i < 2 * rows * columns; ++i) values[i] = static_cast<float>(i % 1009) - 500.0F;
  tensor<float, 1> out(rows);
  read_bandwidth memory;
  std::vector<contender> runs{{"read 512 MiB", [&] { memory(&pool); }},
                              {"eigen", [&] { row_cosines(eigen, X, Y, out.view()); }},
                              {"fused", [&] { row_cosines(fused, X, Y, out.view()); }}};
  for (auto _ : state) interleave_runs(runs, 9, threads == 1);
  double const ceiling = static_cast<double>(read_bandwidth::bytes) / median(runs[0]);
  state.counters["read GB/s"] = ceiling / 1e9;
  for (std::size_t i = 1; i < runs.size(); ++i)
    state.counters[runs[i].name + ": share of read"] =
        static_cast<double>(2 * rows * columns * 4) / median(runs[i]) / ceiling;
}
BENCHMARK(cosine_ladder)->Arg(1)->Arg(2)->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
