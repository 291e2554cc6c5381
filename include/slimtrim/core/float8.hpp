// The 8-bit floating-point storage types of checkpoints: E4M3 (finite only, one NaN) and the E8M0 scale.
#pragma once

#include <slimtrim/core/config.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {

/// OCP FP8 E4M3: sign, 4 exponent bits (bias 7), 3 mantissa bits; no infinity, NaN = 0x7f / 0xff, largest 448.
/// From float: round to nearest even, magnitudes above 448 saturate to 448, NaN stays NaN.
struct float8_e4m3 {
  std::uint8_t bits;

  float8_e4m3() = default;
  SLIMTRIM_HD constexpr explicit float8_e4m3(float value) : bits(round_from(value)) {}
  SLIMTRIM_HD constexpr explicit operator float() const {
    std::uint32_t const sign = static_cast<std::uint32_t>(bits & 0x80U) << 24;
    std::uint32_t const exponent = (bits >> 3) & 0xfU;
    std::uint32_t const mantissa = bits & 0x7U;
    if (exponent == 0xfU && mantissa == 0x7U) return bits_as<float>(0x7fc00000U);
    if (exponent != 0) return bits_as<float>(sign | ((exponent + 120U) << 23) | (mantissa << 20));
    float const magnitude = static_cast<float>(mantissa) * 0.001953125F;  // 2^-9
    return bits_as<float>(sign | bits_as<std::uint32_t>(magnitude));
  }
  SLIMTRIM_HD static constexpr float8_e4m3 from_bits(std::uint8_t raw) {
    float8_e4m3 value{};
    value.bits = raw;
    return value;
  }

 private:
  SLIMTRIM_HD static constexpr std::uint8_t round_from(float value) {
    std::uint32_t const f = bits_as<std::uint32_t>(value);
    std::uint32_t const sign = (f >> 24) & 0x80U;
    std::uint32_t const magnitude = f & 0x7fffffffU;
    if (magnitude > 0x7f800000U) return static_cast<std::uint8_t>(sign | 0x7fU);
    if (magnitude >= 0x43e80000U) return static_cast<std::uint8_t>(sign | 0x7eU);  // 464 and up saturate
    if (magnitude < 0x3c800000U) {                                                // below 2^-6: subnormal
      float const aligned = bits_as<float>(magnitude) + 16384.0F;           // ulp(2^14) = 2^-9
      return static_cast<std::uint8_t>(sign | (bits_as<std::uint32_t>(aligned) - 0x46800000U));
    }
    std::uint32_t const rounded = magnitude + 0x7ffffU + ((magnitude >> 20) & 1U);
    std::uint32_t const code = (rounded - 0x3c000000U) >> 20;
    return static_cast<std::uint8_t>(sign | (code > 0x7eU ? 0x7eU : code));
  }
};

/// OCP E8M0, the block scale of the MX formats: 2^(bits - 127) for codes 0 to 254, NaN = 0xff; no sign, no zero.
struct float8_e8m0 {
  std::uint8_t bits;

  SLIMTRIM_HD constexpr explicit operator float() const {
    if (bits == 0xffU) return bits_as<float>(0x7fc00000U);
    // 2^-127 is a subnormal float.
    return bits_as<float>(bits == 0 ? 0x00400000U : static_cast<std::uint32_t>(bits) << 23);
  }
  SLIMTRIM_HD static constexpr float8_e8m0 from_bits(std::uint8_t raw) { return float8_e8m0{raw}; }
};

}  // namespace v0
}  // namespace slimtrim
