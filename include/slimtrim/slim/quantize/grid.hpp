// Which values a code can stand for, relative to the scale and zero point of its group.
//
// | grid          | code bits     | values of (w / scale)                          | scale                      |
// |---------------|---------------|------------------------------------------------|----------------------------|
// | uniform_grid  | 1 .. 8        | -2^(b-1) .. 2^(b-1)-1, or 0 - z .. 2^b - 1 - z | float, bfloat16 or float16 |
// | float8_grid   | 8             | E4M3, up to 448                                | the same                   |
// | mxfp4_grid    | 4             | 0 .5 1 1.5 2 3 4 6 with a sign                 | a power of two (E8M0)      |
//
// Only the uniform grid has integer codes, so only it fills a quantized_view.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/float8.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/slim/quantize/scale.hpp>

#include <cmath>
#include <concepts>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {

/// A set of values that codes stand for. `from_range(lowest, highest, type)` gives the scale (rounded to `type`) and zero point
/// that cover [lowest, highest]; `encode` gives the code of the nearest value; `decode` the value of a code.
template <class G>
concept grid = requires(G const& g, float value, scale_and_zero at, std::uint32_t code, scale_type type) {
  { g.code_bits() } -> std::convertible_to<int>;
  { g.from_range(value, value, type) } -> std::same_as<scale_and_zero>;
  { g.encode(value, at) } -> std::same_as<std::uint32_t>;
  { g.decode(code, at) } -> std::same_as<float>;
};

/// Equidistant values, codes 0 .. 2^bits - 1.
///
/// Symmetric: scale = max|w| / ((2^b - 1) / 2), zero = 2^(b-1), so q = code - zero is in -2^(b-1) .. 2^(b-1) - 1; the
/// convention of compressed-tensors (the largest positive value may be off by half a step).
/// With zero points: lowest = min(w, 0), highest = max(w, 0), scale = (highest - lowest) / (2^b - 1),
/// zero = round(-lowest / scale). Codes: round(clamp(w / scale + zero)), ties to even on the signed code.
struct uniform_grid {
  int bits = 4;
  bool symmetric = true;

  [[nodiscard]] SLIMTRIM_HD constexpr int code_bits() const { return bits; }
  [[nodiscard]] SLIMTRIM_HD constexpr int middle() const { return 1 << (bits - 1); }
  [[nodiscard]] SLIMTRIM_HD constexpr int last_code() const { return (1 << bits) - 1; }
  /// Bound of |code - zero| as a power of two.
  [[nodiscard]] SLIMTRIM_HD constexpr int span_bits() const { return symmetric ? bits - 1 : bits; }

  /// Throws `error` when no such grid exists.
  void check() const { expects(bits >= 1 && bits <= 8, "uniform_grid", "bits must be 1 to 8"); }

  [[nodiscard]] SLIMTRIM_HD scale_and_zero from_range(float lowest, float highest, scale_type type) const {
    double const low = lowest < 0 ? static_cast<double>(lowest) : 0.0;
    double const high = highest > 0 ? static_cast<double>(highest) : 0.0;
    if (symmetric) {
      double const largest = high > -low ? high : -low;
      return {round_scale(largest / (0.5 * last_code()), type, span_bits()), middle()};
    }
    float const scale = round_scale((high - low) / last_code(), type, span_bits());
    return {scale, zero_of(low, scale)};
  }
  /// The zero point that puts `low` <= 0 on code 0, as near as integers allow.
  [[nodiscard]] SLIMTRIM_HD int zero_of(double low, float scale) const {
    double const zero = std::nearbyint(-low / static_cast<double>(scale));
    return zero < 0 ? 0 : (zero > last_code() ? last_code() : static_cast<int>(zero));
  }
  [[nodiscard]] SLIMTRIM_HD std::uint32_t encode(float value, scale_and_zero at) const {
    float const bottom = static_cast<float>(-middle()), top = static_cast<float>(last_code() - middle());
    float x = value / at.scale + static_cast<float>(at.zero - middle());
    x = x < bottom ? bottom : x;
    x = x > top ? top : x;
    // Adding 1.5 * 2^23 leaves the integer nearest to x (ties to even) in the low bits.
    return (bits_as<std::uint32_t>(x + 12582912.0F) + static_cast<std::uint32_t>(middle())) & 0xffU;
  }
  [[nodiscard]] SLIMTRIM_HD float decode(std::uint32_t code, scale_and_zero at) const {
    return static_cast<float>(static_cast<int>(code) - at.zero) * at.scale;
  }
};

/// FP8 E4M3 times a scale: scale = max|w| / 448.
struct float8_grid {
  [[nodiscard]] constexpr int code_bits() const { return 8; }
  [[nodiscard]] scale_and_zero from_range(float lowest, float highest, scale_type type) const {
    float const largest = std::fabs(lowest) > std::fabs(highest) ? std::fabs(lowest) : std::fabs(highest);
    return {round_scale(static_cast<double>(largest) / 448.0, type, 9), 0};
  }
  [[nodiscard]] std::uint32_t encode(float value, scale_and_zero at) const {
    return float8_e4m3(value / at.scale).bits;
  }
  [[nodiscard]] float decode(std::uint32_t code, scale_and_zero at) const {
    return static_cast<float>(float8_e4m3::from_bits(static_cast<std::uint8_t>(code))) * at.scale;
  }
};

/// OCP microscaling FP4 (E2M1, saturating) with a power-of-two scale 2^(floor(log2 max|w|) - 2); meant for groups of 32.
/// Code: sign in bit 3, exponent in bits 2-1, mantissa in bit 0. `type` only bounds the scale's exponent.
struct mxfp4_grid {
  [[nodiscard]] constexpr int code_bits() const { return 4; }
  [[nodiscard]] scale_and_zero from_range(float lowest, float highest, scale_type type) const {
    float const largest = std::fabs(lowest) > std::fabs(highest) ? std::fabs(lowest) : std::fabs(highest);
    if (!(largest > 0)) return {1.0F, 0};
    return {round_scale(std::ldexp(1.0, std::ilogb(largest) - 2), type, 3), 0};
  }
  [[nodiscard]] std::uint32_t encode(float value, scale_and_zero at) const {
    float const x = std::fabs(value / at.scale);
    std::uint32_t const sign = std::signbit(value) ? 8U : 0U;
    // Midpoints between neighbours; a tie goes to the even mantissa.
    constexpr float midpoint[7] = {0.25F, 0.75F, 1.25F, 1.75F, 2.5F, 3.5F, 5.0F};
    std::uint32_t code = 0;
    for (std::uint32_t i = 0; i < 7; ++i)
      if (x > midpoint[i] || (x == midpoint[i] && i % 2 == 1)) code = i + 1;
    return sign | code;
  }
  [[nodiscard]] float decode(std::uint32_t code, scale_and_zero at) const {
    constexpr float value[8] = {0, 0.5F, 1, 1.5F, 2, 3, 4, 6};
    float const magnitude = value[code & 7U] * at.scale;
    return (code & 8U) != 0 ? -magnitude : magnitude;
  }
};

static_assert(grid<uniform_grid> && grid<float8_grid> && grid<mxfp4_grid>);

}  // namespace v0
}  // namespace slimtrim
