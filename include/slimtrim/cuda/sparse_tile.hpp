// Where the elements of a 2:4 sparse tile stand: of every four neighbouring columns of a row two are kept, with two
// bits each that say which; operand A of mma.sp.m16n8k32.
//
// The instruction knows a row's 32 columns as eight chunks of four. Lane (g, t) holds the kept pairs of chunks t and t
// + 4 of rows g and g + 8, in the registers in which a dense 16 x 16 tile has its pairs, so codes are unpacked alike.
// The bits of chunks 0 .. 3 (4 .. 7) of rows g and g + 8 are one word, held by lane (g, 2 selector) ((g, 2 selector +
// 1)): a tile of 64 columns is two instructions, their bits fill one word of every lane, and nothing is exchanged.
//
// B's rows are held as of old: lane t has rows 2 t + 8 r and the next, so one half of chunks 2 r + t / 2. Chunks are
// dealt such that lanes 0 and 1 need columns 0 .. 31 of a tile and lanes 2 and 3 the others; a lane reads them all, 16
// bytes at a time, and keeps every other word.
#pragma once

#include <slimtrim/core/config.hpp>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Extents of a sparse tile of 16 rows by 64 columns.
struct sparse_tile {
  static constexpr int steps = 2;         // instructions
  static constexpr int chunks = 8;        // of four columns, of one instruction
  static constexpr int words = 32 * 3;    // 32-bit words: two of codes a lane, then one of places a lane
  static constexpr int place_words = 64;  // where the latter begin
};

/// The group of four columns (0 .. 15 of the tile) that instruction `step` meets as its chunk `chunk`.
[[nodiscard]] SLIMTRIM_HD constexpr int group_of_chunk(int step, int chunk) {
  return 8 * (chunk % 2) + 4 * step + chunk / 2;
}

/// The inverse.
struct step_and_chunk {
  int step;
  int chunk;
};
[[nodiscard]] SLIMTRIM_HD constexpr step_and_chunk chunk_of_group(int group) {
  return {group % 8 / 4, 2 * (group % 4) + group / 8};
}

/// Lane and nibble (of its word `step`) of the code of kept element `k` (0 or 1) of a row's chunk.
struct sparse_code_place {
  int lane;
  int nibble;
};
[[nodiscard]] SLIMTRIM_HD constexpr sparse_code_place place_of_sparse_code(int row, int chunk, int k) {
  return {4 * (row % 8) + chunk % 4, row / 8 + 2 * (chunk / 4) + 4 * k};
}

/// Lane and lowest bit of the four bits that say which elements of a row's chunk are kept: first + 4 * second.
struct sparse_bits_place {
  int lane;
  int shift;
};
[[nodiscard]] SLIMTRIM_HD constexpr sparse_bits_place place_of_sparse_bits(int row, int step, int chunk) {
  return {4 * (row % 8) + 2 * step + chunk / 4, 16 * (row / 8) + 4 * (chunk % 4)};
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
