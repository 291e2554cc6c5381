// Eight neighbours of a row as floats: by 16-byte loads where rows are aligned, one by one elsewhere.
#pragma once

#include <slimtrim/core/numeric.hpp>
#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/memory.cuh>
#include <slimtrim/cuda/words.hpp>

#include <cstddef>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Elements of a chunk.
inline constexpr int chunk_elements = 8;

/// Whether every chunk of X can be read 16 bytes at a time.
template <class T>
[[nodiscard]] bool reads_chunks(device_matrix<T const> X) {
  constexpr index_t step = 16 / static_cast<index_t>(sizeof(T));
  return reinterpret_cast<std::uintptr_t>(X.data) % 16 == 0 && (X.stride(1) == 1 || X.extent(1) <= 1) &&
         X.extent(1) % chunk_elements == 0 && X.stride(0) % step == 0;
}

/// out[i] = X(row, first + i), `behind` where that column does not exist. `wide`: what reads_chunks said.
template <class T>
__device__ __forceinline__ void read_chunk(device_matrix<T const> X, index_t row, index_t first, bool wide, float behind,
                                           float (&out)[chunk_elements]) {
  if (wide) {
    constexpr int loads = static_cast<int>(sizeof(T)) / 2, each = chunk_elements / loads;
    struct alignas(16) elements {
      T value[std::size_t{each}];
    };
    auto const* const from = reinterpret_cast<words4 const*>(X.data + row * X.stride(0) + first);
#pragma unroll
    for (int l = 0; l < loads; ++l) {
      auto const part = bits_as<elements>(load_shared_by_blocks(from + l));
#pragma unroll
      for (int i = 0; i < each; ++i) out[l * each + i] = static_cast<float>(part.value[i]);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < chunk_elements; ++i) out[i] = first + i < X.extent(1) ? static_cast<float>(X(row, first + i)) : behind;
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
