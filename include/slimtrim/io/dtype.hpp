// The element types of safetensors: strings, sizes, and which C++ type holds them.
#pragma once

#include <slimtrim/core/float16.hpp>  // float16, bfloat16
#include <slimtrim/core/float8.hpp>   // float8_e4m3
#include <slimtrim/core/index.hpp>    // checked arithmetic

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace slimtrim {
inline namespace v0 {

/// An element type of safetensors, in the format's order of increasing alignment (its writers sort by it).
/// `unknown` stands for a type that a newer writer invented: such tensors can be copied, not computed with.
enum class dtype : std::uint8_t {
  unknown,
  boolean,
  float4,
  float6_e2m3,
  float6_e3m2,
  uint8,
  int8,
  float8_e5m2,
  float8_e4m3,
  float8_e8m0,
  float8_e4m3fnuz,
  float8_e5m2fnuz,
  int16,
  uint16,
  float16,
  bfloat16,
  int32,
  uint32,
  float32,
  complex64,
  float64,
  int64,
  uint64,
};

namespace detail {
struct dtype_row {
  std::string_view name;
  unsigned bits;
};
inline constexpr std::array<dtype_row, 23> dtype_table{{
    {"", 0},         {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},
    {"I8", 8},       {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
    {"I16", 16},     {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},
    {"F32", 32},     {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
}};
}  // namespace detail

/// The format's string for `type` ("BF16"); empty for `unknown`.
[[nodiscard]] constexpr std::string_view dtype_name(dtype type) {
  return detail::dtype_table[static_cast<std::size_t>(type)].name;
}

/// Bits of one element; 0 for `unknown`.
[[nodiscard]] constexpr unsigned dtype_bits(dtype type) {
  return detail::dtype_table[static_cast<std::size_t>(type)].bits;
}

/// The type that the format calls `name`, or `unknown`.
[[nodiscard]] constexpr dtype dtype_from_name(std::string_view name) {
  for (std::size_t i = 1; i < detail::dtype_table.size(); ++i)
    if (detail::dtype_table[i].name == name) return static_cast<dtype>(i);
  return dtype::unknown;
}

/// Number of elements of `shape` (1 for a scalar), or nothing when an extent is negative or the product, taken from
/// left to right, does not fit in 64 bits.
[[nodiscard]] constexpr std::optional<std::uint64_t> element_count(std::span<index_t const> shape) {
  std::uint64_t count = 1;
  for (index_t const extent : shape) {
    if (extent < 0) return std::nullopt;
    auto const next = checked_multiply(count, static_cast<std::uint64_t>(extent));
    if (!next) return std::nullopt;
    count = *next;
  }
  return count;
}

/// Bytes of a tensor of known type, or nothing when they do not fit in 64 bits or are not whole.
[[nodiscard]] constexpr std::optional<std::uint64_t> byte_count(dtype type, std::span<index_t const> shape) {
  auto const count = element_count(shape);
  if (!count) return std::nullopt;
  auto const bits = checked_multiply(*count, dtype_bits(type));
  if (!bits || *bits % 8 != 0) return std::nullopt;
  return *bits / 8;
}

/// The `dtype` that a C++ type is stored as; only the types listed here have a value. (BOOL has none: a byte of a
/// file need not be a valid `bool`; read it as bytes.)
template <class T>
inline constexpr dtype dtype_of = dtype::unknown;
template <>
inline constexpr dtype dtype_of<std::uint8_t> = dtype::uint8;
template <>
inline constexpr dtype dtype_of<std::int8_t> = dtype::int8;
template <>
inline constexpr dtype dtype_of<slimtrim::float8_e4m3> = dtype::float8_e4m3;
template <>
inline constexpr dtype dtype_of<std::int16_t> = dtype::int16;
template <>
inline constexpr dtype dtype_of<std::uint16_t> = dtype::uint16;
template <>
inline constexpr dtype dtype_of<slimtrim::float16> = dtype::float16;
template <>
inline constexpr dtype dtype_of<slimtrim::bfloat16> = dtype::bfloat16;
template <>
inline constexpr dtype dtype_of<std::int32_t> = dtype::int32;
template <>
inline constexpr dtype dtype_of<std::uint32_t> = dtype::uint32;
template <>
inline constexpr dtype dtype_of<float> = dtype::float32;
template <>
inline constexpr dtype dtype_of<double> = dtype::float64;
template <>
inline constexpr dtype dtype_of<std::int64_t> = dtype::int64;
template <>
inline constexpr dtype dtype_of<std::uint64_t> = dtype::uint64;

}  // namespace v0
}  // namespace slimtrim
