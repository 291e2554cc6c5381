// The Eigen backend's products: gemm against one call of Eigen on the whole matrices, and the Gram update against the
// plain product Xᵀ X through our own tiles (same threads, same operands). Rates count the operations of the plain
// product, so a Gram update that skips half of them shows up to twice the rate.
#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>

#include <benchmark/benchmark.h>

#include <Eigen/Core>

#include <cstdint>

namespace {

using namespace slimtrim;

template <class T>
tensor<T, 2> random_matrix(index_t n, index_t m, std::uint64_t stream) {
  tensor<T, 2> x(n, m);
  for (index_t i = 0; i < n * m; ++i)
    x.view().data[i] = static_cast<T>(2 * uniform_at(5, stream, static_cast<std::uint64_t>(i)) - 1);
  return x;
}

void count_operations(benchmark::State& state, double each) {
  state.counters["FLOP/s"] =
      benchmark::Counter(each, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::OneK::kIs1000);
}

// X Wᵀ with X: [tokens, 1024], W: [3584, 1024], as in an expert's up projection.
template <class T>
void eigen_whole_product(benchmark::State& state) {
  index_t const n = state.range(0), k = 1024, m = 3584;
  auto const X = random_matrix<T>(n, k, 1), W = random_matrix<T>(m, k, 2);
  tensor<T, 2> Y(n, m);
  using rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Eigen::Map<rows const> const x(X.view().data, n, k), w(W.view().data, m, k);
  Eigen::Map<rows> y(Y.view().data, n, m);
  for (auto _ : state) {
    y.noalias() = x * w.transpose();
    benchmark::DoNotOptimize(Y.view().data);
  }
  count_operations(state, 2.0 * static_cast<double>(n * k * m));
}

template <class T>
void tiled_product(benchmark::State& state) {
  index_t const n = state.range(0), k = 1024, m = 3584;
  auto const X = random_matrix<T>(n, k, 1), W = random_matrix<T>(m, k, 2);
  tensor<T, 2> Y(n, m);
  thread_pool pool(state.range(1));
  eigen_backend const backend(pool);
  for (auto _ : state) {
    backend.gemm(T{1}, X.view(), transposed(W.view()), T{0}, Y.view());
    benchmark::DoNotOptimize(Y.view().data);
  }
  count_operations(state, 2.0 * static_cast<double>(n * k * m));
}

// H += Xᵀ X with X: [2048, m].
template <class T>
void plain_square_product(benchmark::State& state) {
  index_t const n = 2048, m = state.range(0);
  auto const X = random_matrix<T>(n, m, 3);
  tensor<T, 2> H(m, m);
  H.fill(T{0});
  thread_pool pool(state.range(1));
  eigen_backend const backend(pool);
  for (auto _ : state) {
    backend.gemm(T{1}, transposed(X.view()), X.view(), T{1}, H.view());
    benchmark::DoNotOptimize(H.view().data);
  }
  count_operations(state, 2.0 * static_cast<double>(n * m * m));
}

template <class T>
void gram_update(benchmark::State& state) {
  index_t const n = 2048, m = state.range(0);
  auto const X = random_matrix<T>(n, m, 3);
  tensor<T, 2> H(m, m);
  H.fill(T{0});
  thread_pool pool(state.range(1));
  eigen_backend const backend(pool);
  for (auto _ : state) {
    backend.gram_update(T{1}, as_const(X.view()), H.view());
    benchmark::DoNotOptimize(H.view().data);
  }
  count_operations(state, 2.0 * static_cast<double>(n * m * m));
}

}  // namespace

BENCHMARK(eigen_whole_product<float>)->Arg(16)->Arg(512)->UseRealTime();
BENCHMARK(tiled_product<float>)->ArgsProduct({{16, 512}, {1, 2}})->UseRealTime();
BENCHMARK(eigen_whole_product<double>)->Arg(512)->UseRealTime();
BENCHMARK(tiled_product<double>)->ArgsProduct({{512}, {1, 2}})->UseRealTime();
BENCHMARK(plain_square_product<float>)->ArgsProduct({{1024, 2048}, {1, 2}})->UseRealTime();
BENCHMARK(gram_update<float>)->ArgsProduct({{1024, 2048}, {1, 2}})->UseRealTime();
BENCHMARK(plain_square_product<double>)->ArgsProduct({{1024}, {1}})->UseRealTime();
BENCHMARK(gram_update<double>)->ArgsProduct({{1024}, {1}})->UseRealTime();
