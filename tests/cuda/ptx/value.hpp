// Values as PTX registers hold them: 64 bits a lane, read with the type that the instruction names.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace ptx {

enum class type { pred, b8, b16, b32, b64, u8, u16, u32, u64, s8, s16, s32, s64, f16, f16x2, bf16, bf16x2, f32, f64 };

template <class T>
T get(std::uint64_t slot) {
  T value;
  std::memcpy(&value, &slot, sizeof(T));  // little-endian: the low bits
  return value;
}
template <class T>
std::uint64_t put(T value) {
  std::uint64_t slot = 0;
  std::memcpy(&slot, &value, sizeof(T));
  return slot;
}

// `value` rounded to the nearest number of `mantissa` bits (the leading one not counted), ties to even, with exponents down to
// `lowest` and then subnormal; larger than the largest becomes infinite.
inline double rounded(double value, int mantissa, int lowest, double largest) {
  if (value == 0 || std::isnan(value) || std::isinf(value)) return value;
  int exponent = 0;
  std::frexp(value, &exponent);
  --exponent;
  if (exponent < lowest) exponent = lowest;
  double const unit = std::ldexp(1.0, exponent - mantissa), nearest = std::nearbyint(value / unit) * unit;
  return std::fabs(nearest) > largest ? std::copysign(INFINITY, value) : nearest;
}

inline float from_f16(std::uint16_t bits) {
  double const sign = bits & 0x8000 ? -1 : 1;
  int const exponent = bits >> 10 & 31, mantissa = bits & 1023;
  if (exponent == 31) return mantissa ? NAN : static_cast<float>(sign * INFINITY);
  if (exponent == 0) return static_cast<float>(sign * std::ldexp(mantissa, -24));
  return static_cast<float>(sign * std::ldexp(1024 + mantissa, exponent - 25));
}
inline std::uint16_t to_f16(double value) {
  if (std::isnan(value)) return 0x7fff;
  auto const sign = static_cast<std::uint16_t>(std::signbit(value) ? 0x8000 : 0);
  double const r = std::fabs(rounded(value, 10, -14, 65504));
  if (std::isinf(r)) return static_cast<std::uint16_t>(sign | 0x7c00);
  if (r < std::ldexp(1.0, -14)) return static_cast<std::uint16_t>(sign | static_cast<int>(std::ldexp(r, 24)));
  int exponent = 0;
  double const fraction = std::frexp(r, &exponent);
  return static_cast<std::uint16_t>(sign | (exponent + 14) << 10 | (static_cast<int>(std::ldexp(fraction, 11)) & 1023));
}
inline float from_bf16(std::uint16_t bits) { return get<float>(static_cast<std::uint64_t>(bits) << 16); }
inline std::uint16_t to_bf16(double value) {
  if (std::isnan(value)) return 0x7fff;
  auto const r = static_cast<float>(rounded(value, 7, -126, 3.3895313892515355e38));
  return static_cast<std::uint16_t>(put(r) >> 16);
}

template <bool Brain>
float widen(std::uint16_t bits) {
  return Brain ? from_bf16(bits) : from_f16(bits);
}
template <bool Brain>
std::uint16_t narrow(double value) {
  return Brain ? to_bf16(value) : to_f16(value);
}

}  // namespace ptx
