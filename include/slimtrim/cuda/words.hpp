// Sixteen bytes as the unit of every wide load, and two 16-bit elements as the unit of tensor-core operands.
#pragma once

#include <slimtrim/core/float16.hpp>
#include <slimtrim/core/numeric.hpp>

#include <concepts>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Sixteen bytes, aligned so that a thread moves them with one instruction.
struct alignas(16) words4 {
  std::uint32_t word[4];
};

/// Eight bytes, the same.
struct alignas(8) words2 {
  std::uint32_t word[2];
};

/// The types in which activations reach the tensor cores.
template <class T>
concept half_precision = std::same_as<T, bfloat16> || std::same_as<T, float16>;

/// The low (`upper` = false) or high element of a pair.
template <half_precision T>
[[nodiscard]] SLIMTRIM_HD constexpr T element_of_pair(std::uint32_t pair, bool upper) {
  return T::from_bits(static_cast<std::uint16_t>(upper ? pair >> 16 : pair & 0xffffU));
}

/// Two elements side by side, the first in the low half.
template <half_precision T>
[[nodiscard]] SLIMTRIM_HD constexpr std::uint32_t pair_of(T low, T high) {
  return static_cast<std::uint32_t>(low.bits) | static_cast<std::uint32_t>(high.bits) << 16;
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
