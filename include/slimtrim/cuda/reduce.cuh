// Sums over the threads of a warp or a block, in an order that is always the same.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// The sum over the lanes, in every lane.
template <class T>
[[nodiscard]] __device__ __forceinline__ T sum_of_warp(T value) {
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}

/// The sum over the threads of a block of whole warps, in every thread. `slots`: shared memory, one a warp.
template <class T>
[[nodiscard]] __device__ __forceinline__ T sum_of_block(T value, T* slots) {
  int const warp = static_cast<int>(threadIdx.x) / 32, warps = static_cast<int>(blockDim.x) / 32;
  value = sum_of_warp(value);
  sync_block();
  if (threadIdx.x % 32 == 0) slots[warp] = value;
  sync_block();
  T sum{};
  for (int w = 0; w < warps; ++w) sum += slots[w];
  return sum;
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
