// Blocked sweep against the column-at-a-time loop, on the same threads. Goal: at least 4x at 2048 columns.
#include <slimtrim/slim/column_sweep.hpp>

#include <benchmark/benchmark.h>

#include <slimtrim/slim/hessian.hpp>

#include <slim/support.hpp>

namespace {

using namespace slimtrim;
using namespace slimtrim_bench;

constexpr index_t rows_swept = 4096, columns_swept = 2048;

prepared_hessian const& prepared() {
  static prepared_hessian const p =
      prepare_hessian(eigen_backend(pool()), as_const(hessian(4096, columns_swept).view()), column_order::natural);
  return p;
}

float rounded(float w) { return ((w * 100.0F + 12582912.0F) - 12582912.0F) * 0.01F; }

struct rounding {
  void begin_block(matrix_view<float const>, index_t, index_t) {}
  void choose(sweep_tile const& tile, index_t j, float* target) const {
    for (index_t l = 0; l < sweep_tile::lanes; ++l) target[l] = rounded(tile.column(j)[l]);
  }
};

void BM_blocked(benchmark::State& state) {
  auto const W = weights<float>(rows_swept, columns_swept);
  buffer<double> losses(rows_swept);
  auto const cuts = sweep_blocks(columns_swept, 128, 0);
  (void)prepared();
  for (auto _ : state) {
    auto moving = W.clone();
    rounding chooser;
    column_sweep(eigen_backend(pool()), moving.view(), as_const(prepared().factor.view()), cuts, chooser,
                 vector_view<double>(losses.data(), rows_swept));
    benchmark::DoNotOptimize(moving(0, 0));
  }
  state.counters["flops"] = benchmark::Counter(double(rows_swept) * columns_swept * columns_swept,
                                               benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

void BM_column_at_a_time(benchmark::State& state) {
  auto const W = weights<float>(rows_swept, columns_swept);
  auto const R = prepared().factor.view();
  for (auto _ : state) {
    auto moving = W.clone();
    for (index_t j = 0; j < columns_swept; ++j)
      parallel_for(&pool(), ceil_div(rows_swept, 64), [&](index_t piece) {
        for (index_t i = piece * 64; i < (piece + 1) * 64; ++i) {
          float* const w = &moving(i, 0);
          float const q = rounded(w[j]), e = (w[j] - q) / R(j, j);
          float const* const r = &R(j, 0);
          w[j] = q;
          for (index_t k = j + 1; k < columns_swept; ++k) w[k] -= e * r[k];
        }
      });
    benchmark::DoNotOptimize(moving(0, 0));
  }
  state.counters["flops"] = benchmark::Counter(double(rows_swept) * columns_swept * columns_swept,
                                               benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1000);
}

BENCHMARK(BM_blocked)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(BM_column_at_a_time)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
