// Codes to 16-bit floats by bits alone: the code takes the place of the lowest bits of a number whose unit is one.
//
// 128 + q is exact in bfloat16 and 1024 + q in float16, for q below 128. So (word >> 4 p) & 0x000f000f, with the bits of that
// number set, is a pair of them, and one subtraction of 128 + zero (1024 + zero) leaves code - zero, exact.
#pragma once

#include <slimtrim/cuda/words.hpp>

#include <cstdint>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// The bits of 128 (bfloat16) or 1024 (float16), twice.
template <half_precision T>
[[nodiscard]] SLIMTRIM_HD constexpr std::uint32_t code_base() {
  return std::is_same_v<T, bfloat16> ? 0x43004300U : 0x64006400U;
}

/// Where the nibbles of a pair are.
inline constexpr std::uint32_t code_mask = 0x000f000fU;

/// Nibbles p and p + 4 of `word` as base + code, p in 0 .. 3.
template <half_precision T>
[[nodiscard]] SLIMTRIM_HD constexpr std::uint32_t raised_codes(std::uint32_t word, int p) {
  return (word >> (4 * p) & code_mask) | code_base<T>();
}

/// base + zero, twice: what is subtracted from raised codes. zero: 0 .. 15.
template <half_precision T>
[[nodiscard]] SLIMTRIM_HD constexpr std::uint32_t raised_zero(std::uint32_t zero) {
  return code_base<T>() | zero | zero << 16;
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
