// The next token on the device: the most likely one, or one drawn at a temperature, so that decoding need not ask the
// host.
#pragma once

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/reduce.cuh>
#include <slimtrim/cuda/top_k.cuh>

#include <cmath>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// How tokens are drawn; top-k and nucleus limits stay with the host's sampler.
struct draw_options {
  double temperature = 0;
  std::uint64_t seed = 0;
  std::uint64_t first_sequence = 0;
};

namespace detail {

inline constexpr int draw_threads = 1024;

// One block a sequence. Threads own contiguous parts of the vocabulary, so that a running sum has the order of the
// host's.
static __global__ void __launch_bounds__(draw_threads)
    draw_tokens(device_matrix<float const> logits, draw_options options, std::int32_t const* step, std::int32_t* tokens,
                device_report* report) {
  __shared__ float best_values[draw_threads / 32];
  __shared__ index_t best_indices[draw_threads / 32];
  __shared__ double sum_of_warps[draw_threads / 32];
  __shared__ int chosen;
  index_t const row = blockIdx.x, vocabulary = logits.extent(1);
  int const thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  index_t const part = (vocabulary + draw_threads - 1) / draw_threads, first = thread * part;
  index_t const last = first + part < vocabulary ? first + part : vocabulary;
  float const* const x = logits.data + row * logits.stride(0);
  candidate<float> best;
  for (index_t i = thread; i < vocabulary; i += draw_threads) {
    if (x[i] != x[i]) raise_to(&report->not_finite, static_cast<unsigned long long>(row * vocabulary + i) + 1);
    candidate<float> const here{x[i], i};
    if (comes_before(here, best)) best = here;
  }
  best = first_of_warp(best);
  if (lane == 0) {
    best_values[warp] = best.value;
    best_indices[warp] = best.index;
  }
  if (thread == 0) chosen = static_cast<int>(vocabulary);
  sync_block();
  for (int w = 0; w < draw_threads / 32; ++w) {
    candidate<float> const other{best_values[w], best_indices[w]};
    if (comes_before(other, best)) best = other;
  }
  if (options.temperature == 0) {
    if (thread == 0) tokens[row] = static_cast<std::int32_t>(best.index);
    return;
  }
  auto const weight = [&](index_t i) {
    return exp((static_cast<double>(x[i]) - static_cast<double>(best.value)) / options.temperature);
  };
  double mine = 0;
  for (index_t i = first; i < last; ++i) mine += weight(i);
  // Sums of all lanes and warps before this thread's.
  double before = 0, all = 0;
  for (int other = 0; other < 32; ++other) {
    double const value = shuffle(mine, other);
    if (other < lane) before += value;
    all += value;
  }
  if (lane == 0) sum_of_warps[warp] = all;
  sync_block();
  double warps_before = 0, total = 0;
  for (int w = 0; w < draw_threads / 32; ++w) {
    if (w == warp) warps_before = total;
    total += sum_of_warps[w];
  }
  double reached = warps_before + before;
  double const target = uniform_at(options.seed, options.first_sequence + static_cast<std::uint64_t>(row),
                                   static_cast<std::uint64_t>(*step)) *
                        total;
  if (reached <= target && target < reached + mine)
    for (index_t i = first; i < last; ++i) {
      reached += weight(i);
      if (reached > target) {
        lower_to(&chosen, static_cast<int>(i));  // rounding may put the target into two threads' shares
        break;
      }
    }
  sync_block();
  // Rounding may leave the target between two threads: then the most likely token, as on the host.
  if (thread == 0) tokens[row] = chosen < vocabulary ? chosen : static_cast<std::int32_t>(best.index);
}

}  // namespace detail

/// tokens[s] = the most likely token of row s of the logits, ties to the lower index, or with a temperature T above 0 a
/// token drawn with probability proportional to exp(logit / T): from stream first_sequence + s of the seed, at place
/// *step, as the host's sampler draws. The order of sums differs from the host's by rounding in double. logits: [S,
/// vocabulary], contiguous rows; step: in device memory. NaN is reported by context::synchronise.
inline void draw_tokens(context& on, device_matrix<float const> logits, draw_options const& options,
                        std::int32_t const* step, std::int32_t* tokens) {
  expects(logits.stride(1) == 1 && logits.extent(1) > 0, "cuda::draw_tokens", "logits: expected contiguous rows");
  expects(options.temperature >= 0, "cuda::draw_tokens", "temperature: expected >= 0");
  launch(on.stream(), {dim3(blocks_for(logits.extent(0))), detail::draw_threads, 0}, detail::draw_tokens, logits,
         options, step, tokens, on.report());
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
