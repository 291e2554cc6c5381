// Round-to-nearest with packing, in memory, against a streaming read in the same run. Goal: bytes read and written at 25 % of
// the read bandwidth.
#include <slimtrim/slim/quantize/rtn.hpp>

#include <benchmark/benchmark.h>

#include <slim/support.hpp>

#include <cstring>

namespace {

using namespace slimtrim;
using namespace slimtrim_bench;

constexpr index_t rows_read = 8192, columns_read = 8192;  // 128 MiB of bfloat16

void BM_stream(benchmark::State& state) {
  auto const W = weights<bfloat16>(rows_read, columns_read);
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(rows_read));
  for (auto _ : state) {
    parallel_for(&pool(), rows_read / 64, [&](index_t piece) {
      std::uint64_t sum[8] = {};
      auto const* data = reinterpret_cast<char const*>(&W(piece * 64, 0));
      for (index_t i = 0; i < 64 * columns_read * 2; i += 64)
        for (int l = 0; l < 8; ++l) {
          std::uint64_t word = 0;
          std::memcpy(&word, data + i + 8 * l, 8);
          sum[l] += word;
        }
      for (std::uint64_t const s : sum) sums[static_cast<std::size_t>(piece)] += s;
    });
    benchmark::DoNotOptimize(sums.data());
  }
  state.SetBytesProcessed(state.iterations() * W.view().size() * 2);
}

template <class T>
void BM_rtn(benchmark::State& state) {
  auto const W = weights<T>(rows_read, columns_read);
  quantize_options options;
  options.grid = {static_cast<int>(state.range(0)), state.range(1) == 0};
  for (auto _ : state) benchmark::DoNotOptimize(rtn(eigen_backend(pool()), W, options).words(0, 0));
  double const bits = 8.0 * sizeof(T) + static_cast<double>(state.range(0));
  state.SetBytesProcessed(static_cast<std::int64_t>(static_cast<double>(state.iterations() * W.view().size()) * bits / 8));
}

BENCHMARK(BM_stream)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_TEMPLATE(BM_rtn, bfloat16)->Args({4, 0})->Args({4, 1})->Args({8, 0})->Args({3, 0})->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_TEMPLATE(BM_rtn, float)->Args({4, 0})->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
