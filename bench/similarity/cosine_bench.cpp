// Row cosines next to the primitive that they are made of.
#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/similarity/cosine.hpp>
#include <slimtrim/tensor/buffer.hpp>

#include <benchmark/benchmark.h>

#include <vector>

namespace {

using namespace slimtrim;

constexpr index_t tokens = 2048, hidden = 1024;

tensor<float, 2> activations(std::uint64_t stream) {
  tensor<float, 2> x(tokens, hidden);
  for (index_t i = 0; i < tokens; ++i)
    for (index_t j = 0; j < hidden; ++j)
      x(i, j) = static_cast<float>(uniform_at(1, stream, static_cast<std::uint64_t>(i * hidden + j))) - 0.5F;
  return x;
}

void row_cosines_of_a_window(benchmark::State& state) {
  auto const x = activations(0), y = activations(1);
  std::vector<float> out(static_cast<std::size_t>(tokens));
  for (auto _ : state) {
    row_cosines(eigen_backend{}, x, y, out);
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(state.iterations() * 2 * tokens * hidden * 4);
}
BENCHMARK(row_cosines_of_a_window);

void row_dots_of_a_window(benchmark::State& state) {
  auto const x = activations(0), y = activations(1);
  std::vector<float> out(static_cast<std::size_t>(tokens));
  for (auto _ : state) {
    eigen_backend{}.row_dots(x.view(), y.view(), vector_view<float>(out.data(), out.size()));
    benchmark::DoNotOptimize(out.data());
  }
  state.SetBytesProcessed(state.iterations() * 2 * tokens * hidden * 4);
}
BENCHMARK(row_dots_of_a_window);

}  // namespace
