// A weight matrix whose elements are small integers times a scale per block: the passive type of everything that
// rtn, gptq and awq produce, and of every packed format that is read.
#pragma once

#include <slimtrim/core/index.hpp>
#include <slimtrim/core/memory_space.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {

/// W[r, c] = (code(r, c) - zero(r, c)) * scale(r, c), W: [rows, columns] = [out, in].
///
/// Codes are unsigned, 0 .. 2^bits - 1. Row r is a stream of bits that starts at word r * words_per_row; element c
/// occupies bits [c * bits, (c + 1) * bits), least significant first, and may straddle two words (compressed-tensors'
/// dense packing, bits 1 to 8). Blocks share one scale and one zero point: block (r / block_rows, group(c)) with
/// group(c) = column_group[c] where given (activation order), else c / block_columns.
template <space Space = space::host>
struct quantized_view {
  static constexpr space memory = Space;

  index_t rows = 0;
  index_t columns = 0;
  int bits = 4;
  std::uint32_t const* words = nullptr;
  index_t words_per_row = 0;
  index_t block_rows = 1;
  index_t block_columns = 0;
  tensor_view<float const, 2, Space> scales{};        // [ceil(rows / block_rows), groups]
  tensor_view<std::uint8_t const, 2, Space> zeros{};  // the same shape; no data: the middle code 2^(bits - 1)
  std::int32_t const* column_group = nullptr;         // [columns], or none

  [[nodiscard]] SLIMTRIM_HD constexpr index_t extent(int d) const { return d == 0 ? rows : columns; }
  [[nodiscard]] SLIMTRIM_HD constexpr index_t group_of(index_t c) const {
    return column_group != nullptr ? column_group[c] : c / block_columns;
  }
  [[nodiscard]] SLIMTRIM_HD constexpr std::uint32_t code(index_t r, index_t c) const {
    index_t const first_bit = c * bits;
    std::uint32_t const* const word = words + r * words_per_row + (first_bit >> 5);
    int const shift = static_cast<int>(first_bit & 31);
    std::uint32_t value = word[0] >> shift;
    if (shift + bits > 32) value |= word[1] << (32 - shift);
    return value & ((std::uint32_t{1} << bits) - 1U);
  }
  [[nodiscard]] SLIMTRIM_HD constexpr int zero(index_t r, index_t c) const {
    return zeros.data != nullptr ? static_cast<int>(zeros(r / block_rows, group_of(c))) : 1 << (bits - 1);
  }
  /// The dequantised element, in float; the difference is an exact small integer, so there is one rounding.
  [[nodiscard]] SLIMTRIM_HD constexpr float operator()(index_t r, index_t c) const {
    return static_cast<float>(static_cast<int>(code(r, c)) - zero(r, c)) * scales(r / block_rows, group_of(c));
  }
};

/// Words that a row of `columns` codes of `bits` bits takes.
[[nodiscard]] SLIMTRIM_HD constexpr index_t packed_words(index_t columns, int bits) {
  return ceil_div(columns * bits, 32);
}

}  // namespace v0
}  // namespace slimtrim
