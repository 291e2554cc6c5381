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

// logits[j] = router[j] . x in float, a warp a row, by a block of `Threads`. x(c): the token's elements 8 c .. 8 c + 7.
// Sums are in the same order whatever `Unroll`, the loads that a lane has in flight. Who reads logits waits for the
// block.
template <half_precision T, int Threads, int Unroll, class Chunk>
__device__ __forceinline__ void router_logits(device_matrix<T const> router, Chunk const& x, float* logits) {
  int const warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  int const experts = static_cast<int>(router.extent(0)), chunks = static_cast<int>(router.extent(1) / 8);
  for (int j = warp; j < experts; j += Threads / 32) {
    auto const* const w = reinterpret_cast<words4 const*>(router.data + j * router.stride(0));
    float sum = 0;
#pragma unroll Unroll
    for (int c = lane; c < chunks; c += 32) {
      words4 const a = x(c), b = load_shared_by_blocks(w + c);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int upper = 0; upper < 2; ++upper)
          sum += static_cast<float>(element_of_pair<T>(a.word[i], upper != 0)) *
                 static_cast<float>(element_of_pair<T>(b.word[i], upper != 0));
    }
    sum = sum_of_warp(sum);
    if (lane == 0) logits[j] = sum;
  }
}

}  // namespace detail
}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
