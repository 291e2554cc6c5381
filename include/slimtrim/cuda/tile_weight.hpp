// A weight matrix in the layout that every product kernel of cuda/ reads: tiles of 16 rows by 64 columns, each lane's
// part of a tile side by side, in the order of the tensor cores' registers.
//
// | kind   | words a lane and tile | word of (step, register)                                                     |
// |--------|-----------------------|------------------------------------------------------------------------------|
// | codes4 | 4                     | word step: nibble p the first, nibble p + 4 the second element of register p |
// | half   | 16                    | word 4 step + register: two 16-bit elements                                  |
// | sparse4| 3                     | sparse_tile.hpp: two words of codes, one of places                           |
//
// Tiles of one strip of 16 rows follow one another along the columns; strips follow one another. Scales and zero points
// lie apart: for each strip, group and g = 0 .. 7 the values of rows g and g + 8 side by side, one load for a lane.
// In a fused gate and up weight, rows 0 .. 7 of a strip are gate's and rows 8 .. 15 the same rows of up, so that one
// lane holds both factors of silu(gate) * up.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/core/memory_space.hpp>
#include <slimtrim/cuda/fragment.hpp>
#include <slimtrim/cuda/sparse_tile.hpp>
#include <slimtrim/cuda/words.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// What the elements of a tile are.
enum class tile_kind : std::uint8_t { codes4, bfloat16, float16, sparse4 };

/// Whether elements are codes with scales.
[[nodiscard]] SLIMTRIM_HD constexpr bool has_codes(tile_kind kind) {
  return kind == tile_kind::codes4 || kind == tile_kind::sparse4;
}
/// The type of scales in memory.
enum class tile_scale : std::uint8_t { none, bfloat16, float16 };

/// group_shift of one scale for a whole row.
inline constexpr int whole_row_shift = 30;

/// A matrix W: [rows, columns] in tiles. `rows` counts stored rows (gate and up together), a multiple of 16; columns is
/// a multiple of 64. W[r, c] = (code - zero) * scale, zero = 8 where `zeros` is null; or the element itself; or 0 where
/// a sparse weight does not keep it.
struct tile_weight_view {
  index_t rows = 0;
  index_t columns = 0;
  tile_kind kind = tile_kind::codes4;
  tile_scale scale_kind = tile_scale::none;
  int group_shift = 0;                    // 2^group_shift blocks of 64 columns share a scale
  words4 const* words = nullptr;
  std::uint16_t const* scales = nullptr;  // [strips, groups, 8, 2], bits of scale_kind
  std::uint8_t const* zeros = nullptr;    // [strips, groups, 8, 2], or none

  [[nodiscard]] SLIMTRIM_HD constexpr index_t strips() const { return rows / tile::rows; }
  [[nodiscard]] SLIMTRIM_HD constexpr index_t blocks() const { return columns / tile::block_columns; }
  [[nodiscard]] SLIMTRIM_HD constexpr index_t groups() const {
    return scale_kind == tile_scale::none ? 0 : (blocks() + (index_t{1} << group_shift) - 1) >> group_shift;
  }
  /// 16-byte words of one tile.
  [[nodiscard]] SLIMTRIM_HD constexpr index_t tile_words() const {
    return kind == tile_kind::codes4 ? 32 : (kind == tile_kind::sparse4 ? sparse_tile::words / 4 : 128);
  }
  /// Where the first 16-byte word of `lane` in tile (strip, block) lies; the lane's next is 32 behind. Not of sparse
  /// tiles.
  [[nodiscard]] SLIMTRIM_HD constexpr index_t word_index(index_t strip, index_t block, int lane) const {
    return (strip * blocks() + block) * tile_words() + lane;
  }
  /// Where the 32-bit words of sparse tile (strip, block) begin.
  [[nodiscard]] SLIMTRIM_HD constexpr index_t sparse_index(index_t strip, index_t block) const {
    return (strip * blocks() + block) * sparse_tile::words;
  }
  /// Index of the pair of rows (g, g + 8) in `scales` and `zeros`, counted in pairs.
  [[nodiscard]] SLIMTRIM_HD constexpr index_t pair_index(index_t strip, index_t group, int g) const {
    return (strip * groups() + group) * 8 + g;
  }

  [[nodiscard]] constexpr index_t words_needed() const { return strips() * blocks() * tile_words(); }
  [[nodiscard]] constexpr index_t scales_needed() const { return strips() * groups() * tile::rows; }
  [[nodiscard]] constexpr index_t scale_bytes() const {
    return scale_kind == tile_scale::none ? 0 : 2;
  }
  /// Bytes that one product must read: codes, scales and zero points.
  [[nodiscard]] constexpr index_t bytes() const {
    return 16 * words_needed() + scales_needed() * (scale_bytes() + (zeros != nullptr ? 1 : 0));
  }
};

/// Whether tiles of codes come in pairs that share their scales, without zero points: what kernels take fastest.
[[nodiscard]] SLIMTRIM_HD constexpr bool shares_in_pairs(tile_weight_view const& w) {
  return has_codes(w.kind) && w.zeros == nullptr && w.group_shift > 0 && w.blocks() % 2 == 0;
}

/// Where element (row, column) of a matrix of 4-bit codes stands: 32-bit word and nibble.
struct code_place {
  index_t word;
  int nibble;
};
[[nodiscard]] SLIMTRIM_HD constexpr code_place place_of_code(tile_weight_view const& w, index_t row, index_t column) {
  int const r = static_cast<int>(row % tile::rows);
  auto const at = place_of_column(static_cast<int>(column % tile::block_columns));
  int const reg = r / 8 + 2 * (at.depth / 8), lane = 4 * (r % 8) + at.depth % 8 / 2;
  index_t const first = w.word_index(row / tile::rows, column / tile::block_columns, lane);
  return {first * 4 + at.step, reg + 4 * (at.depth % 2)};
}

/// Where element (row, column) of a matrix of 16-bit elements stands, counted in elements.
[[nodiscard]] SLIMTRIM_HD constexpr index_t place_of_half(tile_weight_view const& w, index_t row, index_t column) {
  int const r = static_cast<int>(row % tile::rows);
  auto const at = place_of_column(static_cast<int>(column % tile::block_columns));
  int const reg = r / 8 + 2 * (at.depth / 8), lane = 4 * (r % 8) + at.depth % 8 / 2;
  index_t const first = w.word_index(row / tile::rows, column / tile::block_columns, lane) + 32 * at.step;
  return (first * 4 + reg) * 2 + at.depth % 2;
}

/// The code of element (row, column) of a sparse matrix, or -1 where it is not kept.
[[nodiscard]] SLIMTRIM_HD inline int sparse_code_at(tile_weight_view const& w, index_t row, index_t column) {
  int const r = static_cast<int>(row % tile::rows), c = static_cast<int>(column % tile::block_columns);
  auto const at = chunk_of_group(c / 4);
  auto const* const words =
      reinterpret_cast<std::uint32_t const*>(w.words) + w.sparse_index(row / tile::rows, column / tile::block_columns);
  auto const bits = place_of_sparse_bits(r, at.step, at.chunk);
  std::uint32_t const places = words[sparse_tile::place_words + bits.lane] >> bits.shift;
  for (int k = 0; k < 2; ++k) {
    if (static_cast<int>(places >> (2 * k) & 3U) != c % 4) continue;
    auto const code = place_of_sparse_code(r, at.chunk, k);
    return static_cast<int>(words[2 * code.lane + at.step] >> (4 * code.nibble) & 15U);
  }
  return -1;
}

/// The stored row of row `row` of gate (`up` = false) or up in a fused weight.
[[nodiscard]] SLIMTRIM_HD constexpr index_t fused_row(index_t row, bool up) { return row / 8 * 16 + row % 8 + (up ? 8 : 0); }

/// The value of scale number `index` of w.
[[nodiscard]] SLIMTRIM_HD constexpr float scale_at(tile_weight_view const& w, index_t index) {
  if (w.scale_kind == tile_scale::none) return 1.0F;
  return w.scale_kind == tile_scale::bfloat16 ? static_cast<float>(bfloat16::from_bits(w.scales[index]))
                                              : static_cast<float>(float16::from_bits(w.scales[index]));
}

/// Element (row, column) of w as a float; the plain reading that kernels are compared with.
[[nodiscard]] SLIMTRIM_HD constexpr float element_at(tile_weight_view const& w, index_t row, index_t column) {
  if (!has_codes(w.kind)) {
    auto const* const halves = reinterpret_cast<std::uint16_t const*>(w.words);
    std::uint16_t const bits = halves[place_of_half(w, row, column)];
    return w.kind == tile_kind::bfloat16 ? static_cast<float>(bfloat16::from_bits(bits))
                                         : static_cast<float>(float16::from_bits(bits));
  }
  int code = 0;
  if (w.kind == tile_kind::sparse4) {
    code = sparse_code_at(w, row, column);
    if (code < 0) return 0.0F;
  } else {
    code_place const at = place_of_code(w, row, column);
    code = static_cast<int>(reinterpret_cast<std::uint32_t const*>(w.words)[at.word] >> (4 * at.nibble) & 15U);
  }
  int const r = static_cast<int>(row % tile::rows);
  index_t const group = column / tile::block_columns >> w.group_shift;
  index_t const index = w.pair_index(row / tile::rows, group, r % 8) * 2 + r / 8;
  int const zero = w.zeros != nullptr ? static_cast<int>(w.zeros[index]) : 8;
  return static_cast<float>(code - zero) * scale_at(w, index);
}

/// Throws `error` unless w's extents and groups are what the kernels take.
inline void check_tile_weight(tile_weight_view const& w) {
  expects(w.rows >= 0 && w.rows % tile::rows == 0, "tile_weight", "rows: expected a multiple of 16");
  expects(w.columns >= 0 && w.columns % tile::block_columns == 0, "tile_weight", "columns: expected a multiple of 64");
  expects(w.group_shift >= 0 && w.group_shift <= whole_row_shift, "tile_weight", "group_shift: expected 0 .. 30");
  expects(has_codes(w.kind) == (w.scale_kind != tile_scale::none), "tile_weight",
          "scales: expected for codes and only for them");
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
