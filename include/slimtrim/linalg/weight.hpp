// Any kind of weight matrix behind one type: dense in a storage type, quantised, masked, or in a backend's own layout.
//
// A slimmed matrix is a matrix: whoever multiplies by a weight does not know which kind it has, and a packed one
// stays packed.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/numeric.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/mask_view.hpp>
#include <slimtrim/tensor/quantized_view.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <cstdint>
#include <memory>
#include <utility>
#include <variant>

namespace slimtrim {
inline namespace v0 {

/// A weight in the private layout of one backend, e.g. the interleaved panels of simd/. `layout` identifies it: the
/// backend that made the view compares it before it casts `data`. Everybody else can still read rows as floats.
struct prepared_view {
  static constexpr space memory = space::host;
  index_t rows = 0;
  index_t columns = 0;
  void const* layout = nullptr;
  void const* data = nullptr;
  void (*expand)(void const* data, index_t row, float* out) = nullptr;  // out: [columns]

  [[nodiscard]] index_t extent(int d) const { return d == 0 ? rows : columns; }
};

/// A host weight matrix W: [out, in] of any kind.
using weight_view =
    std::variant<matrix_view<float const>, matrix_view<bfloat16 const>, matrix_view<float16 const>, quantized_view<>,
                 masked_view<float>, masked_view<bfloat16>, masked_view<float16>, prepared_view>;

[[nodiscard]] inline index_t weight_rows(weight_view const& w) {
  return std::visit([](auto const& v) { return v.extent(0); }, w);
}
[[nodiscard]] inline index_t weight_columns(weight_view const& w) {
  return std::visit([](auto const& v) { return v.extent(1); }, w);
}

/// A weight together with whatever keeps its memory alive: a mapped file, or buffers of its own.
struct weight {
  weight_view view{};
  std::shared_ptr<void const> storage{};

  [[nodiscard]] index_t rows() const { return weight_rows(view); }
  [[nodiscard]] index_t columns() const { return weight_columns(view); }
  [[nodiscard]] bool empty() const { return rows() == 0 || columns() == 0; }
};

/// A weight that owns a dense float matrix.
[[nodiscard]] inline weight own_weight(tensor<float, 2> values) {
  auto held = std::make_shared<tensor<float, 2>>(std::move(values));
  weight result;
  result.view = as_const(held->view());
  result.storage = std::move(held);
  return result;
}

namespace detail {

inline void expand_row(matrix_view<float const> w, index_t r, float* out) {
  index_t const n = w.extent(1);
  if (w.stride(1) == 1) {
    float const* const from = w.data + r * w.stride(0);
    for (index_t c = 0; c < n; ++c) out[c] = from[c];
  } else {
    for (index_t c = 0; c < n; ++c) out[c] = w(r, c);
  }
}

template <class T>
void expand_row(matrix_view<T const> w, index_t r, float* out) {
  index_t const n = w.extent(1);
  if (w.stride(1) == 1) {
    T const* const from = w.data + r * w.stride(0);
    for (index_t c = 0; c < n; ++c) out[c] = static_cast<float>(from[c]);
  } else {
    for (index_t c = 0; c < n; ++c) out[c] = static_cast<float>(w(r, c));
  }
}

// Natural groups of whole words at 2, 4 and 8 bits: codes of one word share a group.
template <int Bits>
void expand_row_in_words(quantized_view<> const& w, index_t r, float* out) {
  constexpr index_t a_word = 32 / Bits;
  constexpr std::uint32_t code_mask = (std::uint32_t{1} << Bits) - 1U;
  std::uint32_t const* const words = w.words + r * w.words_per_row;
  index_t const block_row = r / w.block_rows;
  for (index_t first = 0; first < w.columns; first += w.block_columns) {
    index_t const group = first / w.block_columns;
    index_t const last = first + w.block_columns < w.columns ? first + w.block_columns : w.columns;
    float const scale = w.scales(block_row, group);
    int const zero = w.zeros.data != nullptr ? static_cast<int>(w.zeros(block_row, group)) : 1 << (Bits - 1);
    index_t c = first;
    for (; c + a_word <= last; c += a_word) {
      std::uint32_t const word = words[c / a_word];
      for (index_t i = 0; i < a_word; ++i)
        out[c + i] = static_cast<float>(static_cast<int>((word >> (i * Bits)) & code_mask) - zero) * scale;
    }
    for (; c < last; ++c)
      out[c] = static_cast<float>(static_cast<int>((words[c / a_word] >> (c % a_word * Bits)) & code_mask) - zero) * scale;
  }
}

inline void expand_row(quantized_view<> const& w, index_t r, float* out) {
  bool const natural = w.column_group == nullptr && w.block_columns % 32 == 0;
  if (natural && w.bits == 4) return expand_row_in_words<4>(w, r, out);
  if (natural && w.bits == 8) return expand_row_in_words<8>(w, r, out);
  if (natural && w.bits == 2) return expand_row_in_words<2>(w, r, out);
  for (index_t c = 0; c < w.columns; ++c) out[c] = w(r, c);
}

inline void expand_row(prepared_view const& w, index_t r, float* out) { w.expand(w.data, r, out); }

template <class T>
void expand_row(masked_view<T> const& w, index_t r, float* out) {
  for (index_t c = 0; c < w.extent(1); ++c) out[c] = w(r, c);
}

}  // namespace detail

/// Rows first .. first + out.extent(0) - 1 of any weight as floats; exact for dense kinds, the dequantised value
/// (code - zero) * scale in float for quantised ones. out: [count, columns], contiguous rows. O(count * columns).
inline void expand_rows(weight_view const& w, index_t first, matrix_view<float> out) {
  expects(out.stride(1) == 1 || out.extent(1) == 1, "expand_rows", "the output's rows must be contiguous");
  std::visit(
      [&](auto const& view) {
        for (index_t i = 0; i < out.extent(0); ++i)
          detail::expand_row(view, first + i, out.data + i * out.stride(0));
      },
      w);
}

/// The whole weight as a dense float matrix of its own. O(rows * columns) memory.
[[nodiscard]] inline tensor<float, 2> expand(weight_view const& w) {
  tensor<float, 2> dense(weight_rows(w), weight_columns(w));
  expand_rows(w, 0, dense.view());
  return dense;
}

}  // namespace v0
}  // namespace slimtrim
