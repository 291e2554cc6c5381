// The inverse factor R with H⁻¹ = Rᵀ R in double: GPTQ's chain of factor, inverse, factor with Eigen on one thread, and
// the reversed factorisation on one and two. Rates count the operations of the reversed form, 2/3 m³.
#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>

#include <benchmark/benchmark.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <cstdint>

namespace {

using namespace slimtrim;
using dense = Eigen::MatrixXd;

// A diagonally dominant symmetric matrix: factorises in any order, costs nothing to make.
dense positive_definite(index_t m) {
  dense H(m, m);
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j <= i; ++j) {
      double const value = uniform_at(1, 0, static_cast<std::uint64_t>(i * m + j)) - 0.5;
      H(i, j) = H(j, i) = i == j ? static_cast<double>(m) : value;
    }
  return H;
}

void count_operations(benchmark::State& state, index_t m) {
  double const n = static_cast<double>(m);
  state.counters["FLOP/s"] = benchmark::Counter(2.0 / 3.0 * n * n * n, benchmark::Counter::kIsIterationInvariantRate,
                                                benchmark::Counter::OneK::kIs1000);
}

void factor_inverse_factor(benchmark::State& state) {
  index_t const m = state.range(0);
  dense const H = positive_definite(m);
  dense R(m, m);
  for (auto _ : state) {
    Eigen::LLT<dense> const first(H);
    dense const inverse = first.solve(dense::Identity(m, m));
    Eigen::LLT<dense> const second(inverse);
    R = second.matrixU();
    benchmark::DoNotOptimize(R.data());
  }
  count_operations(state, m);
}

void reversed_factor(benchmark::State& state) {
  index_t const m = state.range(0);
  dense const H = positive_definite(m);
  tensor<double, 2> R(m, m);
  thread_pool pool(state.range(1));
  eigen_backend const backend(pool);
  matrix_view<double const> const view(H.data(), m, m);
  for (auto _ : state) {
    if (!backend.inverse_factor(view, R.view())) state.SkipWithError("not positive definite");
    benchmark::DoNotOptimize(R.view().data);
  }
  count_operations(state, m);
}

}  // namespace

BENCHMARK(factor_inverse_factor)->Arg(512)->Arg(1024)->Arg(2048)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(reversed_factor)->ArgsProduct({{512, 1024, 2048}, {1, 2}})->UseRealTime()->Unit(benchmark::kMillisecond);
