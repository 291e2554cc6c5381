// What the benchmarks of simd/ share: random weights, the ceilings of this machine, and interleaved medians.
//
// Each benchmark is one ladder: its contenders run in turn within one iteration of Google Benchmark, so that a busy
// machine slows all alike, and the counters are rates and ratios of medians. One thread is timed by CPU time.
#pragma once

#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/simd/backend.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

namespace simd_bench {

using namespace slimtrim;

/// Seconds that `run` takes: by the clock on the wall, or the CPU time of the process, which a busy machine distorts less
/// but which is only meaningful for one thread.
inline double seconds_of(std::function<void()> const& run, bool cpu_time) {
  auto now = [cpu_time] {
    if (cpu_time) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  double const begin = now();
  run();
  return now() - begin;
}

struct contender {
  std::string name;
  std::function<void()> run;
  std::vector<double> seconds{};
};

inline double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(q * static_cast<double>(values.size() - 1) + 0.5)];
}

/// Runs all contenders in turn `rounds` times, so that a busy machine slows all alike.
inline void interleave_runs(std::vector<contender>& all, int rounds, bool cpu_time) {
  for (auto& each : all) each.run();
  for (int round = 0; round < rounds; ++round)
    for (auto& each : all) each.seconds.push_back(seconds_of(each.run, cpu_time));
}

/// Median over rounds of how many times faster `a` is than `b` in the same round.
inline double speed_up(contender const& a, contender const& b) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < a.seconds.size(); ++i) ratios.push_back(b.seconds[i] / a.seconds[i]);
  return quantile(ratios, 0.5);
}

inline double median(contender const& run) { return quantile(run.seconds, 0.5); }

/// A quantised weight with memory of its own.
struct codes {
  std::vector<std::uint32_t> words;
  std::vector<float> scales;
  quantized_view<> view;
  codes(index_t rows, index_t columns, int bits, index_t group, std::uint64_t seed) {
    view.rows = rows, view.columns = columns, view.bits = bits, view.block_columns = group;
    view.words_per_row = packed_words(columns, bits);
    words.resize(static_cast<std::size_t>(rows * view.words_per_row));
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint32_t>(random_bits_at(seed, 0, i));
    scales.assign(static_cast<std::size_t>(rows * ceil_div(columns, group)), 0.01F);
    view.words = words.data();
    view.scales = tensor_view<float const, 2>(scales.data(), rows, ceil_div(columns, group));
  }
};

template <class T>
tensor<T, 2> random_dense(index_t rows, index_t columns, std::uint64_t seed) {
  tensor<T, 2> x(rows, columns);
  for (index_t i = 0; i < rows * columns; ++i) {
    std::uint64_t const bits = random_bits_at(seed, 1, static_cast<std::uint64_t>(i));
    x.view().data[i] = T(static_cast<float>(static_cast<std::int32_t>(bits)) * 0x1p-31F);
  }
  return x;
}

/// Bytes a second at which `pool` sums 512 MiB on huge pages: the ceiling of everything that streams.
class read_bandwidth {
 public:
  read_bandwidth() : memory_(arena_.allocate(bytes)) {
    for (index_t i = 0; i < bytes; i += 4096) memory_.get()[i] = std::byte{1};
  }
  void operator()(executor* pool) {
    constexpr index_t piece = index_t{1} << 20;
    std::vector<std::uint64_t> sums(static_cast<std::size_t>(bytes / piece));
    parallel_for(pool, bytes / piece, [&](index_t i) {
      auto const* const words = reinterpret_cast<std::uint64_t const*>(memory_.get() + i * piece);
      std::uint64_t sum[16] = {};
      for (index_t w = 0; w < piece / 8; w += 16)
        for (index_t l = 0; l < 16; ++l) sum[l] += words[w + l];
      std::uint64_t total = 0;
      for (auto const part : sum) total += part;
      sums[static_cast<std::size_t>(i)] = total;
    });
    for (auto const sum : sums) kept_ += sum;
  }
  static constexpr index_t bytes = index_t{512} << 20;
  [[nodiscard]] std::uint64_t kept() const { return kept_; }

 private:
  simd::weight_arena arena_;
  std::shared_ptr<std::byte> memory_;
  std::uint64_t kept_ = 0;
};

}  // namespace simd_bench
