// What handing a job to the pool costs: as many pieces as threads, each with `work` nanoseconds to do, and a pause of `pause`
// nanoseconds of the caller between jobs, as between the matrices of a layer. Counter `overhead`: the time of a job beyond
// its work.
#include <slimtrim/core/thread_pool.hpp>

#include <benchmark/benchmark.h>

#include <chrono>
#include <thread>

namespace {

using namespace slimtrim;
using clock_type = std::chrono::steady_clock;

void busy_for(std::chrono::nanoseconds time) {
  auto const end = clock_type::now() + time;
  while (clock_type::now() < end) {
  }
}

void BM_hand_off(benchmark::State& state) {
  thread_pool pool(static_cast<index_t>(std::thread::hardware_concurrency()));
  std::chrono::nanoseconds const work(state.range(0)), pause(state.range(1));
  double seconds = 0;
  for (auto _ : state) {
    busy_for(pause);
    auto const begin = clock_type::now();
    pool.run(pool.concurrency(), [&](index_t) { busy_for(work); });
    double const taken = std::chrono::duration<double>(clock_type::now() - begin).count();
    state.SetIterationTime(taken);
    seconds += taken;
  }
  state.counters["overhead ns"] =
      1e9 * seconds / static_cast<double>(state.iterations()) - static_cast<double>(state.range(0));
}

BENCHMARK(BM_hand_off)
    ->ArgNames({"work", "pause"})
    ->Args({5000, 0})
    ->Args({5000, 2000})
    ->Args({5000, 20000})
    ->Args({5000, 500000})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
