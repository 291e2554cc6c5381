// Which element of a tile each lane of a warp holds in mma.m16n8k16 (and, for A, in wgmma), and the order of columns that
// lets a lane load all it needs of a 64-column block with 16-byte loads.
//
//     D[16, 8] += A[16, 16] B[16, 8]     A: weights (rows are outputs), B: activations (columns are tokens)
//
// A sum over k does not care in which order columns are met, as long as A and B agree. Lane (g, t), g = lane / 4,
// t = lane % 4, takes the 16 columns 16 t .. 16 t + 15 of every block of 64: in step s = 0 .. 3 columns 16 t + 4 s + 0 .. 3.
// So 16 activations of a token are 32 contiguous bytes, and four steps of 4-bit weights are 16.
#pragma once

#include <slimtrim/core/config.hpp>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Extents of one instruction's tiles, and of the block that a lane's 16 bytes of codes cover.
struct tile {
  static constexpr int rows = 16;
  static constexpr int tokens = 8;
  static constexpr int depth = 16;
  static constexpr int steps = 4;
  static constexpr int block_columns = depth * steps;
};

/// A place in a tile.
struct tile_position {
  int row;
  int column;
};

/// Element `i` (0 or 1) of register `reg` (0 .. 3) of A in lane `lane`, columns as the instruction counts them.
[[nodiscard]] SLIMTRIM_HD constexpr tile_position weight_element(int lane, int reg, int i) {
  return {lane / 4 + 8 * (reg % 2), 2 * (lane % 4) + 8 * (reg / 2) + i};
}
/// Element `i` of register `reg` (0 or 1) of B: row = depth, column = token.
[[nodiscard]] SLIMTRIM_HD constexpr tile_position activation_element(int lane, int reg, int i) {
  return {2 * (lane % 4) + 8 * reg + i, lane / 4};
}
/// Element `i` (0 .. 3) of D: row = output, column = token.
[[nodiscard]] SLIMTRIM_HD constexpr tile_position result_element(int lane, int i) {
  return {lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2};
}

/// The column of the 64-column block that the instruction of step `step` meets as its column `depth`.
[[nodiscard]] SLIMTRIM_HD constexpr int block_column(int step, int depth) {
  return 16 * (depth % 8 / 2) + 4 * step + 2 * (depth / 8) + depth % 2;
}

/// The step and the instruction's column of a column of the block: the inverse of block_column.
struct step_and_depth {
  int step;
  int depth;
};
[[nodiscard]] SLIMTRIM_HD constexpr step_and_depth place_of_column(int column) {
  int const within = column % 16;
  return {within / 4, 2 * (column / 16) + 8 * (within % 4 / 2) + within % 2};
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
