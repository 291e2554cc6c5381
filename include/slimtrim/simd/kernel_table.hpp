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

/// A weight W: [rows, columns] cut into panels of `lanes` rows, each panel one contiguous stretch of memory.
///
/// Within a panel, groups of columns follow one another; a group is `lanes` scales (float, quantised kinds only), then
/// `lanes` zero points (float, only with `has_zeros`), then its words: word w of every row of the panel side by side.
/// A row's words are those of quantized_view (codes, least significant first) or the elements as stored. Rows and
/// columns beyond the matrix are zero words (and zero scales).
struct panel_view {
  element_kind kind = element_kind::codes4;
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
  [[nodiscard]] constexpr index_t head_bytes() const { return quantised() ? (has_zeros ? 8 : 4) * lanes : 0; }
  [[nodiscard]] constexpr index_t size_of_panel() const { return groups() * head_bytes() + blocks * block_bytes(); }
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
/// 8 columns lie in the order 0 2 4 6 1 3 5 7.
struct int8_activations {
  std::int8_t const* codes = nullptr;  // [tokens, blocks * 32]
  float const* scales = nullptr;       // [tokens, blocks]
  float const* sums = nullptr;         // [tokens, blocks], of the codes
  index_t blocks = 0;
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
  // Places of two vectors of columns: first all even, then all odd ones. Its period is 2 * float lanes.
  index_t pair_period;
};

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
