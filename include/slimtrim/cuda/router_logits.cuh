// The logits of one token by a block: warps share the router's rows. What routing alone and the front of a layer share.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/memory.cuh>
#include <slimtrim/cuda/reduce.cuh>
#include <slimtrim/cuda/words.hpp>

namespace slimtrim {
inline namespace v0 {
namespace cuda {
namespace detail {

// The first loads of the row that a warp takes first, begun before its token is known.
template <int Held>
struct router_start {
  words4 held[std::size_t{Held}];
  template <class T>
  __device__ __forceinline__ explicit router_start(device_matrix<T const> router) {
    int const warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
    int const chunks = static_cast<int>(router.extent(1) / 8);
    if (warp >= static_cast<int>(router.extent(0))) return;
    auto const* const w = reinterpret_cast<words4 const*>(router.data + warp * router.stride(0));
#pragma unroll
    for (int i = 0; i < Held; ++i)
      if (lane + 32 * i < chunks) held[i] = load_ahead(w + lane + 32 * i);
  }
};

// logits[j] = router[j] . x in float, a warp a row, by a block of `Threads`. x(c): the token's elements 8 c .. 8 c + 7.
// Sums are in the same order whatever `Unroll`, the loads that a lane has in flight, and whatever has been begun. Who reads
// logits waits for the block.
template <half_precision T, int Threads, int Unroll, class Chunk, int Held = 1>
__device__ __forceinline__ void router_logits(device_matrix<T const> router, Chunk const& x, float* logits,
                                              router_start<Held> const* begun = nullptr) {
  int const warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  int const experts = static_cast<int>(router.extent(0)), chunks = static_cast<int>(router.extent(1) / 8);
  auto const multiply = [&](words4 const& a, words4 const& b, float& sum) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
      for (int upper = 0; upper < 2; ++upper)
        sum += static_cast<float>(element_of_pair<T>(a.word[i], upper != 0)) *
               static_cast<float>(element_of_pair<T>(b.word[i], upper != 0));
  };
  for (int j = warp; j < experts; j += Threads / 32) {
    auto const* const w = reinterpret_cast<words4 const*>(router.data + j * router.stride(0));
    float sum = 0;
    int first = lane;
    if (begun != nullptr && j == warp) {
#pragma unroll
      for (int i = 0; i < Held; ++i)
        if (lane + 32 * i < chunks) multiply(x(lane + 32 * i), begun->held[i], sum);
      first += 32 * Held;
    }
#pragma unroll Unroll
    for (int c = first; c < chunks; c += 32) multiply(x(c), load_shared_by_blocks(w + c), sum);
    sum = sum_of_warp(sum);
    if (lane == 0) logits[j] = sum;
  }
}

}  // namespace detail
}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
