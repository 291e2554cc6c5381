// Codes one byte each on their way to a quantised matrix: encoded, judged, replaced row by row, packed. What GPTQ, AWQ
// and SparseGPT share.
#pragma once

#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/elementwise.cuh>
#include <slimtrim/slim/quantize/quantized_matrix.hpp>

#include <cstdint>
#include <optional>

namespace slimtrim {
inline namespace v0 {
namespace cuda {
namespace detail {

// Scales of a stack of rows, stored group by group.
struct group_scales {
  float* scales = nullptr;
  std::uint8_t* zeros = nullptr;
  index_t rows = 0;
  [[nodiscard]] SLIMTRIM_HD scale_and_zero at(index_t row, index_t group, uniform_grid const& grid) const {
    index_t const place = group * rows + row;
    return {scales[place], zeros != nullptr ? static_cast<int>(zeros[place]) : grid.middle()};
  }
};

// Scales, zero points and codes of stacks of n rows, as far as there is a grid.
struct rounded_stacks {
  rounded_stacks(context& on, std::optional<uniform_grid> const& grid, index_t group, index_t problems, index_t n,
                 index_t c)
      : rows(n),
        columns(c),
        groups(grid ? ceil_div(c, group) : 0),
        scales(on.scratch_for<float>(problems * groups * n)),
        zeros(on.scratch_for<std::uint8_t>(grid && !grid->symmetric ? problems * groups * n : 0)),
        codes(on.scratch_for<std::uint8_t>(grid ? problems * n * c : 0)) {}

  [[nodiscard]] group_scales of(index_t p) const {
    return {scales.data() + p * groups * rows, zeros.size() > 0 ? zeros.data() + p * groups * rows : nullptr, rows};
  }
  [[nodiscard]] device_matrix<std::uint8_t> codes_of(index_t p) const {
    return device_matrix<std::uint8_t>(codes.data() + p * rows * columns, rows, columns);
  }
  // Of rows first .. of stack p, a row of the matrix each: [count, groups].
  [[nodiscard]] device_matrix<float> scales_of(index_t p, index_t first, index_t count) const {
    index_t const sizes[2] = {count, groups}, steps[2] = {1, rows};
    return device_matrix<float>(of(p).scales + first, sizes, steps);
  }
  [[nodiscard]] device_matrix<std::uint8_t> zeros_of(index_t p, index_t first, index_t count) const {
    index_t const sizes[2] = {count, groups}, steps[2] = {1, rows};
    if (zeros.size() == 0) return {};
    return device_matrix<std::uint8_t>(of(p).zeros + first, sizes, steps);
  }

  index_t rows, columns, groups;
  scratch<float> scales;
  scratch<std::uint8_t> zeros, codes;
};

// Codes of round-to-nearest; or the error of codes, decoded minus W, where asked divided by something of the column's.
// Columns of `codes` are in sweep order.
template <class T>
struct encode_element {
  device_matrix<T const> W;
  uniform_grid grid;
  index_t group, first_row;
  group_scales scales;
  device_matrix<std::uint8_t> codes;
  std::int32_t const* place;  // column -> position
  SLIMTRIM_HD void operator()(index_t i, index_t j) const {
    codes(first_row + i, place[j]) =
        static_cast<std::uint8_t>(grid.encode(static_cast<float>(W(i, j)), scales.at(first_row + i, j / group, grid)));
  }
};
template <class T>
struct error_element {
  device_matrix<T const> W;
  uniform_grid grid;
  index_t group, first_row;
  group_scales scales;
  device_matrix<std::uint8_t const> codes;
  std::int32_t const* place;
  device_matrix<float> error;
  float const* divide_by = nullptr;  // by column
  SLIMTRIM_HD void operator()(index_t i, index_t j) const {
    scale_and_zero const at = scales.at(first_row + i, j / group, grid);
    float const difference = grid.decode(codes(first_row + i, place[j]), at) - static_cast<float>(W(i, j));
    error(i, j) = divide_by != nullptr ? difference / divide_by[j] : difference;
  }
};

// Where the rounded row is better, its codes (or what else a row has) and scales take the place of the swept ones.
template <class Element>
struct keep_rounded {
  float const* rounded_error;
  float const* swept_error;
  Element const* from;
  Element* to;
  index_t columns;
  SLIMTRIM_HD void operator()(index_t r, index_t j) const {
    if (rounded_error[r] < swept_error[r]) to[r * columns + j] = from[r * columns + j];
  }
};
struct keep_rounded_scales {
  float const* rounded_error;
  float const* swept_error;
  group_scales from, to;
  SLIMTRIM_HD void operator()(index_t g, index_t r) const {
    if (!(rounded_error[r] < swept_error[r])) return;
    to.scales[g * to.rows + r] = from.scales[g * to.rows + r];
    if (to.zeros != nullptr) to.zeros[g * to.rows + r] = from.zeros[g * to.rows + r];
  }
};

// Word w of a row: the bits that its codes, in natural order, leave there.
struct pack_word {
  std::uint8_t const* codes;  // of the first row
  std::int32_t const* place;
  index_t columns;
  int bits;
  device_matrix<std::uint32_t> words;
  SLIMTRIM_HD void operator()(index_t r, index_t w) const {
    std::uint32_t word = 0;
    index_t const last_bit = (w + 1) * 32;
    for (index_t j = w * 32 / bits; j < columns && j * bits < last_bit; ++j) {
      index_t const shift = j * bits - w * 32;
      std::uint32_t const code = codes[r * columns + place[j]];
      word |= shift >= 0 ? code << shift : code >> -shift;
    }
    words(r, w) = word;
  }
};

// Packs rows of codes and brings them, scales and zero points to `out`. Waits for the device.
inline void download_codes(context& on, std::uint8_t const* codes, std::int32_t const* place,
                           device_matrix<float const> scales, device_matrix<std::uint8_t const> zeros,
                           quantized_matrix& out) {
  index_t const words_a_row = packed_words(out.columns, out.grid.bits), count = scales.size();
  auto const words = on.scratch_for<std::uint32_t>(out.rows * words_a_row);
  device_matrix<std::uint32_t> const packed(words.data(), out.rows, words_a_row);
  for_each_element(on, out.rows, words_a_row, false, pack_word{codes, place, out.columns, out.grid.bits, packed});
  auto const by_row = on.scratch_for<float>(count);
  copy_elements<float, float>(on, scales, device_matrix<float>(by_row.data(), scales.extent(0), scales.extent(1)));
  copy_to_host(on.stream(), words.data(), out.rows * words_a_row, out.words.view().data);
  copy_to_host(on.stream(), by_row.data(), count, out.scales.view().data);
  if (zeros.data == nullptr) return;
  auto const zeros_by_row = on.scratch_for<std::uint8_t>(count);
  copy_elements<std::uint8_t, std::uint8_t>(
      on, zeros, device_matrix<std::uint8_t>(zeros_by_row.data(), scales.extent(0), scales.extent(1)));
  copy_to_host(on.stream(), zeros_by_row.data(), count, out.zeros.view().data);
}

}  // namespace detail
}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
