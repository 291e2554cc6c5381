// Round to nearest in 4 bits, bfloat16 in and codes out, against the read bandwidth of the same run. `rtn` returns
// fresh memory, whose pages the system clears first; `rtn_into` writes where it wrote before.
#include "support.hpp"

#include <slimtrim/slim/quantize/rtn.hpp>

using namespace simd_bench;

namespace {

void rtn_ladder(benchmark::State& state) {
  index_t const threads = state.range(0), rows = 8192, columns = 8192;
  thread_pool pool(threads);
  simd_backend const fused(pool);
  eigen_backend const generic(pool);
  auto const W = random_dense<bfloat16>(rows, columns, 1);
  quantize_options options;
  options.groups.size = state.range(1);
  read_bandwidth memory;
  quantized_matrix kept;
  auto quantise = [&](auto const& backend) {
    return [&] {
      rtn_into(backend, as_const(W.view()), options, kept);
      benchmark::DoNotOptimize(kept.words(0, 0));
    };
  };
  std::vector<contender> runs{
      {"read 512 MiB", [&] { memory(&pool); }},
      {"generic", quantise(generic)},
      {"fused, fresh memory", [&] { benchmark::DoNotOptimize(rtn(fused, as_const(W.view()), options).words(0, 0)); }},
      {"fused", quantise(fused)}};
  for (auto _ : state) interleave_runs(runs, 9, threads == 1);
  double const ceiling = static_cast<double>(read_bandwidth::bytes) / median(runs[0]);
  double const bytes = static_cast<double>(rows * columns) * (2 + 0.5);
  for (std::size_t i = 1; i < runs.size(); ++i) {
    state.counters[runs[i].name + ": GB/s"] = bytes / median(runs[i]) / 1e9;
    state.counters[runs[i].name + ": share of read"] = bytes / median(runs[i]) / ceiling;
  }
  state.counters["fused: x of generic"] = speed_up(runs[3], runs[1]);
}
BENCHMARK(rtn_ladder)->Args({1, 128})->Args({2, 128})->Args({2, 32})->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
