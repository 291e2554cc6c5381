// What a set of compiled kernels offers: plain data and function pointers, the same type for every instruction set.
//
// The kernels themselves live in target/ and are compiled once per instruction set into a namespace of their own;
// dispatch.hpp hands out the table of the compiler's flags, runtime_kernels.hpp the best one of the machine it runs on.
#pragma once

#include <slimtrim/core/float16.hpp>
#include <slimtrim/core/index.hpp>

#include <cstddef>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace simd {

/// Columns that share one scale of a dynamic 8-bit activation, and the unit in which columns are padded.
inline constexpr index_t block_columns = 32;
/// Most tokens that one call of the `exact_few` and `dense_few` kernels takes.
inline constexpr index_t few_tokens = 8;
/// Most tokens that one call of `int8` takes.
inline constexpr index_t int8_tokens = 32;
/// Most tokens in one tile of `multiply_tile`.
inline constexpr index_t tile_tokens = 6;

/// How the 32-bit words of a panel are read. The value is the number of bits of an element.
enum class element_kind : std::uint8_t { codes4 = 4, codes8 = 8, bfloat16_pairs = 16, float16_pairs = 17, floats = 32 };

[[nodiscard]] constexpr index_t bits_of(element_kind kind) {
  return kind == element_kind::float16_pairs ? 16 : static_cast<index_t>(kind);
}

/// How the scales and zero points of a panel are stored: as few bits as keep their values.
enum class scale_kind : std::uint8_t { floats, bfloat16s, float16s };

/// A weight W: [rows, columns] cut into panels of `lanes` rows, each panel one contiguous stretch of memory.
///
/// A group of columns has a head (quantised kinds only): `lanes` scales, then, with `has_zeros`, `lanes` zero points. As many
/// heads as fill 64 bytes lie before the words of their groups, so that a panel is read from front to back and its words
/// begin at multiples of 64 bytes. Word w of every row of the panel lie side by side. A row's words are those of
/// quantized_view (codes, least significant first) or the elements as stored. Rows and columns beyond the matrix are zero
/// words (and zero scales).
struct panel_view {
  element_kind kind = element_kind::codes4;
  scale_kind scales = scale_kind::floats;
  bool has_zeros = false;
  float middle = 8;          // the zero point where there are none
  index_t rows = 0;
  index_t columns = 0;
  index_t lanes = 8;
  index_t blocks = 0;        // of 32 columns
  index_t group_blocks = 1;  // blocks in a group; the last group may have fewer
  index_t panel_bytes = 0;
  std::byte const* data = nullptr;

  [[nodiscard]] constexpr bool quantised() const { return bits_of(kind) <= 8; }
  [[nodiscard]] constexpr index_t panels() const { return ceil_div(rows, lanes); }
  [[nodiscard]] constexpr index_t groups() const { return ceil_div(blocks, group_blocks); }
  [[nodiscard]] constexpr index_t block_bytes() const { return bits_of(kind) * 4 * lanes; }
  [[nodiscard]] constexpr index_t scale_bytes() const { return scales == scale_kind::floats ? 4 : 2; }
  [[nodiscard]] constexpr index_t head_bytes() const {
    return quantised() ? (has_zeros ? 2 : 1) * scale_bytes() * lanes : 0;
  }
  /// Groups whose heads lie together, and the bytes of those.
  [[nodiscard]] constexpr index_t groups_a_stretch() const {
    return head_bytes() > 0 && head_bytes() < 64 ? 64 / head_bytes() : 1;
  }
  [[nodiscard]] constexpr index_t stretch_head_bytes() const { return groups_a_stretch() * head_bytes(); }
  /// Where the head of a group and the words of a block lie in a panel.
  [[nodiscard]] constexpr index_t head_at(index_t group) const {
    index_t const stretch = group / groups_a_stretch(), blocks_before = stretch * groups_a_stretch() * group_blocks;
    return stretch * stretch_head_bytes() + blocks_before * block_bytes() + group % groups_a_stretch() * head_bytes();
  }
  [[nodiscard]] constexpr index_t words_at(index_t block) const {
    return (block / group_blocks / groups_a_stretch() + 1) * stretch_head_bytes() + block * block_bytes();
  }
  [[nodiscard]] constexpr index_t size_of_panel() const {
    return ceil_div(groups(), groups_a_stretch()) * stretch_head_bytes() + blocks * block_bytes();
  }
};

/// Float activations of some tokens, padded with zeros to whole blocks. For the `exact_few` kernels on codes, the element
/// at place i of a word is multiplied by 2^(-bits i) beforehand (all but the last place), which spares the kernel a shift.
struct float_activations {
  float const* values = nullptr;      // [tokens, stride]
  float const* group_sums = nullptr;  // [tokens, groups], of the unscaled values; only for codes
  index_t stride = 0;
  index_t groups = 0;
  std::int32_t const* tokens = nullptr;  // rows to take, in order; none: the first ones
  [[nodiscard]] constexpr index_t row(index_t t) const { return tokens != nullptr ? tokens[t] : t; }
};

/// 8-bit activations: value = scale * code, code in -127 .. 127, one scale for 32 columns. For 4-bit weights the codes of
/// 8 columns lie in the order 0 2 4 6 1 3 5 7. What belongs to block b of token t is number
/// row(t) * token_stride + b * block_stride, so that tokens may follow blocks or blocks tokens.
struct int8_activations {
  std::int8_t const* codes = nullptr;    // 32 a block
  float const* scales = nullptr;         // one a block
  std::int32_t const* starts = nullptr;  // minus the sum of the codes, times the zero point where all weights have one
  index_t token_stride = 0;
  index_t block_stride = 1;
  std::int32_t const* tokens = nullptr;  // rows to take, in order; none: the first ones
  [[nodiscard]] constexpr index_t row(index_t t) const { return tokens != nullptr ? tokens[t] : t; }
};

/// Where a kernel writes: element (t, r) at data[t * token_stride + r * row_stride]; rows beyond `rows` are not written.
struct output_rows {
  float* data = nullptr;
  index_t token_stride = 0;
  index_t row_stride = 1;
  index_t rows = 0;
};

/// Positions whose keys lie side by side.
inline constexpr index_t key_positions = 16;

/// Keys and values of one head: element d of position j at keys[j / 16 * key_stride + d * 16 + j % 16] and
/// values[j * value_stride + d], float, float16 or, with scales, 8 bits. The positions that a last block of 16 lacks must be
/// readable.
struct key_value_head {
  index_t bits = 32;
  index_t rows = 0;
  index_t dim = 0;  // a multiple of 16
  void const* keys = nullptr;
  void const* values = nullptr;
  float const* key_scales = nullptr;    // of position j at j / 16 * key_scale_stride + j % 16
  float const* value_scales = nullptr;  // of position j at j * value_scale_stride
  index_t key_stride = 0, value_stride = 0, key_scale_stride = 0, value_scale_stride = 0;
};

/// Kernels compiled for one instruction set. All are single-threaded, allocate nothing, and are deterministic.
struct kernel_table {
  char const* name = "";
  index_t lanes = 8;

  // out(t, r) = sum_k X(t, k) W(first_row + r, k) for `panels` panels from `panel`; at most few_tokens tokens.
  void (*exact_few)(panel_view const&, index_t panel, index_t panels, float_activations const&, index_t tokens,
                    output_rows);
  // The same with 8-bit activations, codes only; at most int8_tokens tokens.
  void (*int8)(panel_view const&, index_t panel, index_t panels, int8_activations const&, index_t tokens, output_rows);
  // Columns 32 first .. 32 (first + blocks) - 1 of one panel as floats, element (r, k) at out[k * stride + r].
  // Codes give exactly (code - zero) * scale.
  void (*expand)(panel_view const&, index_t panel, index_t first, index_t blocks, float* out, index_t stride);
  // out(t, r) (+)= sum_k x[k * tokens + t] panel[k * 2 * lanes + r] over `depth` columns; tokens <= tile_tokens.
  void (*multiply_tile)(float const* panel, float const* x, index_t depth, index_t tokens, bool add, float* out,
                        index_t token_stride);
  // out(t, r) = sum_k X(t, k) W(r, k) for row-major rows of `columns` elements; at most few_tokens tokens.
  // X is padded to a multiple of 64 columns; for bfloat16 its columns are in `pair_order`.
  void (*dense_few)(element_kind, void const* rows, index_t row_stride, index_t columns, float_activations const&,
                    index_t tokens, output_rows);
  // sums = {sum x y, sum x x, sum y y} of two rows of floats, bfloat16 or float16.
  void (*cosine_sums)(element_kind, void const* x, void const* y, index_t columns, double* sums);
  // Rounds a row of `columns` floats to 8 bits as int8_activations describes: 32 codes, a scale and the sum of the codes
  // for each block, columns beyond the last counting as zeros. Returns the first block that is not finite, or -1.
  index_t (*round_row)(float const* x, index_t columns, element_kind weights, std::int8_t* codes, float* scales,
                       std::int32_t* sums);
  // z[i] = sum_j softmax_j(scale q[i] . key_j) value_j for `queries` rows of dim floats that share one head.
  // scores: [at most 4 queries, rows rounded up to 16], scratch.
  void (*attend)(key_value_head const&, float const* q, index_t q_stride, index_t queries, float scale, float* scores,
                 float* z, index_t z_stride);
  // The largest |w| of every `group` columns of a row of floats, bfloat16 or float16, as the bits of a float (not finite: at
  // least 0x7f800000), and the row's symmetric 4-bit codes over given scales, whose quotients must be finite. Columns and groups
  // are multiples of 32.
  void (*group_magnitudes)(element_kind, void const* row, index_t columns, index_t group, std::uint32_t* largest);
  void (*encode4)(element_kind, void const* row, index_t columns, index_t group, float const* scales,
                  std::uint32_t* words);
  // Bits (64 columns a word) of the `keep` highest |w| norms[k] of every `group` (4 or 8, at most most_of_group) columns, equal
  // ones by the lower column, of a row of floats, bfloat16 or float16. Columns are a multiple of 64. Returns the largest |w| as
  // the bits of a float.
  std::uint32_t (*keep_in_groups)(element_kind, void const* row, float const* norms, index_t columns, index_t group,
                                  index_t keep, std::uint64_t* bits);
  index_t most_of_group;
  // Places of two vectors of columns: first all even, then all odd ones. Its period is 2 * float lanes.
  index_t pair_period;
  // What `int8` takes off 8-bit codes before it multiplies them.
  std::int32_t byte_offset;
  // Up to how many tokens `exact_few` is at least as fast as `expand` and `multiply_tile`.
  index_t streamed_tokens;
};

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
