// The two 16-bit floating-point storage types: IEEE half and bfloat16.
//
// They store and convert, nothing else: arithmetic happens in `accumulator_t`. Conversions to float are exact;
// conversions from float round to nearest, ties to even, overflow to infinity, and keep NaN a (quiet) NaN.
#pragma once

#include <slimtrim/core/config.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {

/// bfloat16: the upper 16 bits of a float32.
struct bfloat16 {
  std::uint16_t bits;

  bfloat16() = default;
  SLIMTRIM_HD constexpr explicit bfloat16(float value) : bits(round_from(bits_as<std::uint32_t>(value))) {}
  SLIMTRIM_HD constexpr explicit operator float() const {
    return bits_as<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  SLIMTRIM_HD static constexpr bfloat16 from_bits(std::uint16_t raw) {
    bfloat16 value{};
    value.bits = raw;
    return value;
  }
  friend SLIMTRIM_HD constexpr bool operator==(bfloat16 a, bfloat16 b) {
    return static_cast<float>(a) == static_cast<float>(b);
  }

 private:
  SLIMTRIM_HD static constexpr std::uint16_t round_from(std::uint32_t f) {
    if ((f & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>((f >> 16) | 0x0040U);
    return static_cast<std::uint16_t>((f + 0x7fffU + ((f >> 16) & 1U)) >> 16);
  }
};

/// IEEE 754 binary16, subnormals included.
struct float16 {
  std::uint16_t bits;

  float16() = default;
  SLIMTRIM_HD constexpr explicit float16(float value) : bits(round_from(bits_as<std::uint32_t>(value))) {}
  SLIMTRIM_HD constexpr explicit operator float() const {
#if defined(__CUDA_ARCH__)
    if (!__builtin_is_constant_evaluated()) {  // the same value in one instruction instead of twenty
      float value;
      asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
      return value;
    }
#endif
    std::uint32_t const sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
    std::uint32_t const exponent = (bits >> 10) & 0x1fU;
    std::uint32_t const mantissa = bits & 0x3ffU;
    if (exponent == 0x1fU) return bits_as<float>(sign | 0x7f800000U | (mantissa << 13));
    if (exponent != 0) return bits_as<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
    // A subnormal half is mantissa * 2^-24, which float32 represents exactly.
    float const magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8F;
    return bits_as<float>(sign | bits_as<std::uint32_t>(magnitude));
  }
  SLIMTRIM_HD static constexpr float16 from_bits(std::uint16_t raw) {
    float16 value{};
    value.bits = raw;
    return value;
  }
  friend SLIMTRIM_HD constexpr bool operator==(float16 a, float16 b) {
    return static_cast<float>(a) == static_cast<float>(b);
  }

 private:
  SLIMTRIM_HD static constexpr std::uint16_t round_from(std::uint32_t f) {
    std::uint32_t const sign = (f >> 16) & 0x8000U;
    std::uint32_t const magnitude = f & 0x7fffffffU;
    if (magnitude > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U);
    if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);  // rounds to 2^16 or more
    if (magnitude < 0x38800000U) {                                                    // below 2^-14: subnormal or zero
      // Adding 0.5f aligns the mantissa so that the float adder does the rounding to multiples of 2^-24.
      float const aligned = bits_as<float>(magnitude) + 0.5F;
      return static_cast<std::uint16_t>(sign | (bits_as<std::uint32_t>(aligned) - 0x3f000000U));
    }
    std::uint32_t const rounded = magnitude + 0xfffU + ((magnitude >> 13) & 1U);
    return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000U) >> 13));
  }
};

}  // namespace v0
}  // namespace slimtrim
