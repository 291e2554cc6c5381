// A lane's part of a weight tile on its way to the tensor cores: loads, and codes made into 16-bit numbers.
#pragma once

#include <slimtrim/cuda/arch/sm80.cuh>
#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/memory.cuh>
#include <slimtrim/cuda/tile_codes.hpp>
#include <slimtrim/cuda/tile_weight.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// What one lane reads of one tile: its words, and the scales and zero points of its two rows, still as bits.
template <tile_kind Kind>
struct lane_tile {
  static constexpr int word_count = Kind == tile_kind::codes4 ? 1 : 4;
  words4 words[word_count];
  std::uint32_t scales = 0;
  std::uint32_t zeros = 0x0808;
};

/// Where one lane finds the tiles of one strip.
template <tile_kind Kind>
class strip_reader {
 public:
  __device__ __forceinline__ strip_reader(tile_weight_view const& w, index_t strip, int lane)
      : words_(w.words + strip * w.blocks() * words_a_tile + lane), group_shift_(w.group_shift) {
    if constexpr (Kind == tile_kind::codes4) {
      index_t const pair = w.pair_index(strip, 0, lane / 4);
      scales_ = reinterpret_cast<std::uint32_t const*>(w.scales) + pair;
      if (w.zeros != nullptr) zeros_ = reinterpret_cast<std::uint16_t const*>(w.zeros) + pair;
    }
  }
  /// Starts the loads of tile `block`. Each byte of the words is read by one lane only.
  __device__ __forceinline__ void load(std::uint32_t block, lane_tile<Kind>& to) const {
    words4 const* const from = words_ + block * words_a_tile;
#pragma unroll
    for (int i = 0; i < lane_tile<Kind>::word_count; ++i) to.words[i] = load_once(from + 32 * i);
    if constexpr (Kind == tile_kind::codes4) {
      to.scales = scales_[(block >> group_shift_) * 8];
      if (zeros_ != nullptr) to.zeros = zeros_[(block >> group_shift_) * 8];
    }
  }

 private:
  static constexpr std::uint32_t words_a_tile = 32 * lane_tile<Kind>::word_count;
  words4 const* words_;
  std::uint32_t const* scales_ = nullptr;
  std::uint16_t const* zeros_ = nullptr;
  int group_shift_;
};

/// Register `reg` of A in step `step`: code - zero, or the elements themselves.
template <half_precision T, tile_kind Kind>
__device__ __forceinline__ void weight_registers(lane_tile<Kind> const& from, int step, std::uint32_t const (&raised)[2],
                                                 std::uint32_t (&a)[4]) {
#pragma unroll
  for (int reg = 0; reg < 4; ++reg) {
    if constexpr (Kind == tile_kind::codes4) {
      a[reg] = subtract_pairs<T>(raised_codes<T>(from.words[0].word[step], reg), raised[reg % 2]);
    } else {
      a[reg] = from.words[step].word[reg];
    }
  }
}

/// base + zero point of the lane's rows g and g + 8.
template <half_precision T>
__device__ __forceinline__ void raised_zeros(std::uint32_t zeros, std::uint32_t (&raised)[2]) {
  raised[0] = raised_zero<T>(zeros & 0xffU);
  raised[1] = raised_zero<T>(zeros >> 8);
}

/// The scales of the lane's rows g and g + 8.
__device__ __forceinline__ void scales_of(tile_scale kind, std::uint32_t bits, float (&scale)[2]) {
  auto const low = static_cast<std::uint16_t>(bits & 0xffffU), high = static_cast<std::uint16_t>(bits >> 16);
  if (kind == tile_scale::bfloat16) {
    scale[0] = static_cast<float>(bfloat16::from_bits(low));
    scale[1] = static_cast<float>(bfloat16::from_bits(high));
  } else {
    scale[0] = static_cast<float>(float16::from_bits(low));
    scale[1] = static_cast<float>(float16::from_bits(high));
  }
}

/// The 16 activations that a lane takes of 64 columns of its token: steps s = 0 .. 3 use words 2 s and 2 s + 1.
struct lane_activations {
  words4 half[2];
  [[nodiscard]] __device__ __forceinline__ std::uint32_t word(int i) const { return half[i / 4].word[i % 4]; }
};

/// Whether activations can be read 16 bytes at a time: aligned, contiguous rows a multiple of 8 elements apart.
template <half_precision T>
[[nodiscard]] bool takes_activations(device_matrix<T const> X) {
  return reinterpret_cast<std::uintptr_t>(X.data) % 16 == 0 && X.stride(1) == 1 && (X.stride(0) % 8 == 0 || X.extent(0) <= 1);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
