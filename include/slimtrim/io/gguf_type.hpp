// The element types of GGUF: numbers in the file, names, and blocks that several elements share.
#pragma once

#include <slimtrim/core/index.hpp>  // checked arithmetic

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace slimtrim {
inline namespace v0 {

/// An element type, by its number in the file. Only the ones that are written here have a name.
enum class gguf_type : std::uint32_t { float32 = 0, float16 = 1, q4_0 = 2, q8_0 = 8, bfloat16 = 30 };

/// What a reader must know of a type: rows are whole blocks of `elements` that take `bytes` each.
struct gguf_type_row {
  std::uint32_t number;
  std::string_view name;
  std::uint32_t elements;
  std::uint32_t bytes;
};

namespace detail {
inline constexpr std::array<gguf_type_row, 22> gguf_types{{
    {0, "F32", 1, 4},       {1, "F16", 1, 2},       {2, "Q4_0", 32, 18},    {3, "Q4_1", 32, 20},
    {6, "Q5_0", 32, 22},    {7, "Q5_1", 32, 24},    {8, "Q8_0", 32, 34},    {9, "Q8_1", 32, 36},
    {10, "Q2_K", 256, 84},  {11, "Q3_K", 256, 110}, {12, "Q4_K", 256, 144}, {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210}, {15, "Q8_K", 256, 292}, {20, "IQ4_NL", 32, 18}, {23, "IQ4_XS", 256, 136},
    {24, "I8", 1, 1},       {25, "I16", 1, 2},      {26, "I32", 1, 4},      {27, "I64", 1, 8},
    {28, "F64", 1, 8},      {30, "BF16", 1, 2},
}};
}  // namespace detail

/// The row of a type, or null for a number that is not known here.
[[nodiscard]] constexpr gguf_type_row const* find_gguf_type(std::uint32_t number) {
  for (gguf_type_row const& row : detail::gguf_types)
    if (row.number == number) return &row;
  return nullptr;
}
/// The row of a type that has one, as every named gguf_type does; numbers from a file go through find_gguf_type.
[[nodiscard]] constexpr gguf_type_row const& gguf_type_info(gguf_type type) {
  return *find_gguf_type(static_cast<std::uint32_t>(type));
}

/// Bytes of a tensor, `shape` outermost first as everywhere here, or nothing when they do not fit in 64 bits or a row
/// is not a whole number of blocks.
[[nodiscard]] constexpr std::optional<std::uint64_t> gguf_bytes(gguf_type_row const& type,
                                                                std::span<index_t const> shape) {
  if (shape.empty() || shape.back() < 0 || shape.back() % static_cast<index_t>(type.elements) != 0) return std::nullopt;
  std::optional<std::uint64_t> bytes = static_cast<std::uint64_t>(shape.back()) / type.elements;
  for (index_t const extent : shape.first(shape.size() - 1)) {
    if (extent < 0) return std::nullopt;
    bytes = checked_multiply(*bytes, static_cast<std::uint64_t>(extent));
    if (!bytes) return std::nullopt;
  }
  return checked_multiply(*bytes, static_cast<std::uint64_t>(type.bytes));
}

}  // namespace v0
}  // namespace slimtrim
