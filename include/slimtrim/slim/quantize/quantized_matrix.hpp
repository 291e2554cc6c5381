// The owning form of a quantised weight: what rtn, gptq and awq return and what packed formats are read into.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/slim/quantize/grid.hpp>
#include <slimtrim/slim/quantize/group.hpp>
#include <slimtrim/slim/quantize/pack.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/quantized_view.hpp>

#include <cstdint>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {

/// W: [rows, columns] = [out, in]; `view()` sees it as a weight that every product takes.
struct quantized_matrix {
  index_t rows = 0;
  index_t columns = 0;
  uniform_grid grid{};
  grouping groups{};
  scale_type scales_stored_as = scale_type::bfloat16;
  matrix<std::uint32_t> words;        // [rows, packed_words(columns, bits)]
  matrix<float> scales;               // [ceil(rows / block_rows), groups], values of scales_stored_as
  matrix<std::uint8_t> zeros;         // the same shape; empty when the grid is symmetric
  buffer<std::int32_t> column_group;  // [columns] where a format stores one, else empty

  quantized_matrix() = default;
  /// Storage for all parts; words, scales and zeros are to be written.
  quantized_matrix(index_t out, index_t in, uniform_grid code_grid, grouping shape, scale_type stored_as) {
    reshape(out, in, code_grid, shape, stored_as);
  }

  /// The same on an object that exists: parts whose shape stays keep their memory (and what is in it), others get new.
  void reshape(index_t out, index_t in, uniform_grid code_grid, grouping shape, scale_type stored_as) {
    code_grid.check();
    shape.check();
    rows = out, columns = in, grid = code_grid, groups = shape, scales_stored_as = stored_as;
    auto const fit = [](auto& part, index_t down, index_t across) {
      if (part.extent(0) != down || part.extent(1) != across)
        part = std::remove_reference_t<decltype(part)>(down, across);
    };
    index_t const blocks_down = ceil_div(out, groups.block_rows(out)), blocks_across = groups.groups(in);
    fit(words, out, packed_words(in, grid.bits));
    fit(scales, blocks_down, blocks_across);
    if (grid.symmetric)
      zeros = {};
    else
      fit(zeros, blocks_down, blocks_across);
    column_group = {};
  }

  [[nodiscard]] quantized_view<> view() const {
    quantized_view<> v;
    v.rows = rows;
    v.columns = columns;
    v.bits = grid.bits;
    v.words = words.view().data;
    v.words_per_row = words.extent(1);
    v.block_rows = groups.block_rows(rows);
    v.block_columns = groups.block_columns(columns);
    v.scales = scales.view();
    if (!grid.symmetric) v.zeros = zeros.view();
    v.column_group = column_group.empty() ? nullptr : column_group.data();
    return v;
  }

  /// Scale and zero point of block (row block, group).
  [[nodiscard]] scale_and_zero at(index_t block_row, index_t group) const {
    return {scales(block_row, group), grid.symmetric ? grid.middle() : static_cast<int>(zeros(block_row, group))};
  }
  void set(index_t block_row, index_t group, scale_and_zero value) {
    scales(block_row, group) = value.scale;
    if (!grid.symmetric) zeros(block_row, group) = static_cast<std::uint8_t>(value.zero);
  }
  /// Packs one row of codes, one byte each.
  void set_row(index_t r, std::uint8_t const* codes) {
    pack_codes(codes, columns, grid.bits, words.view().data + r * words.extent(1));
  }

  /// Bytes of codes, scales (in their stored type) and zero points (packed).
  [[nodiscard]] index_t bytes() const {
    index_t const blocks = scales.view().size();
    index_t const scale_bytes = blocks * (scales_stored_as == scale_type::float32 ? 4 : 2);
    index_t const zero_bytes = grid.symmetric ? 0 : 4 * packed_words(scales.extent(0), grid.bits) * scales.extent(1);
    return words.view().size() * 4 + scale_bytes + zero_bytes + static_cast<index_t>(column_group.size()) * 4;
  }
};

/// out[c] = row r of the dequantised weight; `out` holds w.columns floats.
inline void dequantize(quantized_view<> const& w, index_t r, float* out) {
  if (w.column_group != nullptr) {
    for (index_t c = 0; c < w.columns; ++c) out[c] = w(r, c);
    return;
  }
  std::uint32_t const mask = (std::uint32_t{1} << w.bits) - 1U;
  std::uint32_t const* word = w.words + r * w.words_per_row;
  std::uint64_t pending = 0;
  int held = 0;
  for (index_t first = 0, g = 0; first < w.columns; first += w.block_columns, ++g) {
    float const scale = w.scales(r / w.block_rows, g);
    int const zero = w.zeros.data != nullptr ? static_cast<int>(w.zeros(r / w.block_rows, g)) : 1 << (w.bits - 1);
    index_t const last = first + w.block_columns < w.columns ? first + w.block_columns : w.columns;
    for (index_t c = first; c < last; ++c) {
      if (held < w.bits) {
        pending |= static_cast<std::uint64_t>(*word++) << held;
        held += 32;
      }
      out[c] = static_cast<float>(static_cast<int>(pending & mask) - zero) * scale;
      pending >>= w.bits;
      held -= w.bits;
    }
  }
}

/// out[r, c] = the dequantised element. Shapes equal; one rounding to float, then to T.
template <class T>
void dequantize(quantized_view<> const& w, matrix_view<T> out) {
  expects_equal(out.extent(0), w.rows, "dequantize", "rows");
  expects_equal(out.extent(1), w.columns, "dequantize", "columns");
  buffer<float> values(w.columns);
  for (index_t r = 0; r < w.rows; ++r) {
    dequantize(w, r, values.data());
    for (index_t c = 0; c < w.columns; ++c) out(r, c) = static_cast<T>(values[c]);
  }
}

}  // namespace v0
}  // namespace slimtrim
