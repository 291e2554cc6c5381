// From host weights of any kind to what the kernels read in device memory: tiles, rows of 16-bit elements, floats.
//
// 4-bit codes in groups that the tiles take stay codes; everything else becomes 16-bit elements of T: exact for weights
// of T, rounded for others. The bytes travel as they lie in the file and are put in order on the device. Extents are
// padded with zeros to whole tiles, so every shape runs.
#pragma once

#include <slimtrim/cuda/product.cuh>
#include <slimtrim/linalg/weight.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <variant>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// A weight in tiles, and the device memory that it lies in. Movable only.
struct device_tiles {
  tile_weight_view view{};
  device_buffer<words4> words{};
  device_buffer<std::uint16_t> scales{};
  device_buffer<std::uint8_t> zeros{};

  [[nodiscard]] index_t bytes() const { return 16 * words.size() + 2 * scales.size() + zeros.size(); }
};

/// Rows and columns that a matrix takes once it is padded to whole tiles on both sides, so that it may follow another.
[[nodiscard]] constexpr index_t padded_extent(index_t n) { return round_up(n, tile::block_columns); }

namespace detail {

/// A source that answers zeros outside its own extents. Activations there are zero, so codes need only be finite.
template <class Source>
struct padded_rows {
  Source from{};
  index_t rows = 0, columns = 0, groups = 0;
  [[nodiscard]] SLIMTRIM_HD constexpr std::uint32_t code(index_t r, index_t c) const {
    return r < rows && c < columns ? from.code(r, c) : 8U;
  }
  [[nodiscard]] SLIMTRIM_HD constexpr float scale(index_t r, index_t g) const {
    return r < rows && g < groups ? from.scale(r, g) : 0.0F;
  }
  [[nodiscard]] SLIMTRIM_HD constexpr int zero(index_t r, index_t g) const {
    return r < rows && g < groups ? from.zero(r, g) : 8;
  }
  [[nodiscard]] SLIMTRIM_HD constexpr std::uint16_t bits(index_t r, index_t c) const requires holds_halves<Source> {
    return r < rows && c < columns ? from.bits(r, c) : std::uint16_t{0};
  }
};

// How the codes of a weight lie in tiles; nothing where the tiles cannot hold them as they are.
struct code_shape {
  tile_scale scale = tile_scale::bfloat16;
  int group_shift = whole_row_shift;
  friend bool operator==(code_shape const&, code_shape const&) = default;
};
[[nodiscard]] inline std::optional<code_shape> code_shape_of(weight_view const& w) {
  auto const* const q = std::get_if<quantized_view<>>(&w);
  if (q == nullptr || q->bits != 4 || q->column_group != nullptr) return std::nullopt;
  code_shape shape;
  bool in_bfloat16 = true, in_float16 = true;
  for (index_t r = 0; r < q->scales.extent(0); ++r)
    for (index_t g = 0; g < q->scales.extent(1); ++g) {
      float const s = q->scales(r, g);
      in_bfloat16 = in_bfloat16 && static_cast<float>(bfloat16(s)) == s;
      in_float16 = in_float16 && static_cast<float>(float16(s)) == s;
    }
  if (!in_bfloat16 && !in_float16) return std::nullopt;
  if (!in_bfloat16) shape.scale = tile_scale::float16;
  if (q->block_columns < q->columns) {
    index_t const blocks = q->block_columns / tile::block_columns;
    if (blocks == 0 || q->block_columns % tile::block_columns != 0 || (blocks & (blocks - 1)) != 0) return std::nullopt;
    shape.group_shift = 0;
    while (index_t{1} << shape.group_shift < blocks) ++shape.group_shift;
  }
  return shape;
}

// A quantised weight on the device as it was on the host, for as long as this lives.
class uploaded_codes {
 public:
  uploaded_codes(context& on, quantized_view<> const& w)
      : words_(on.scratch_for<std::uint32_t>(w.rows * w.words_per_row)),
        scales_(on.scratch_for<float>(w.scales.size())),
        zeros_(on.scratch_for<std::uint8_t>(w.zeros.data != nullptr ? w.zeros.size() : 0)) {
    copy_to_device(on.stream(), w.words, words_.size(), words_.data());
    std::vector<float> scales;
    std::vector<std::uint8_t> zeros;
    for (index_t r = 0; r < w.scales.extent(0); ++r)
      for (index_t g = 0; g < w.scales.extent(1); ++g) {
        scales.push_back(w.scales(r, g));
        if (w.zeros.data != nullptr) zeros.push_back(w.zeros(r, g));
      }
    copy_to_device(on.stream(), scales.data(), scales_.size(), scales_.data());
    copy_to_device(on.stream(), zeros.data(), zeros_.size(), zeros_.data());
    quantized_view<space::device> view;
    view.rows = w.rows;
    view.columns = w.columns;
    view.words = words_.data();
    view.words_per_row = w.words_per_row;
    view.block_rows = w.block_rows;
    view.block_columns = w.block_columns;
    view.scales = device_matrix<float const>(scales_.data(), w.scales.extent(0), w.scales.extent(1));
    if (w.zeros.data != nullptr)
      view.zeros = device_matrix<std::uint8_t const>(zeros_.data(), w.zeros.extent(0), w.zeros.extent(1));
    source_ = {{view}, w.rows, w.columns, w.scales.extent(1)};
  }
  [[nodiscard]] padded_rows<code_rows<space::device>> const& source() const { return source_; }

 private:
  scratch<std::uint32_t> words_;
  scratch<float> scales_;
  scratch<std::uint8_t> zeros_;
  padded_rows<code_rows<space::device>> source_{};
};

// Any weight on the device as rows of T.
template <half_precision T>
class uploaded_halves {
 public:
  uploaded_halves(context& on, weight_view const& w)
      : elements_(on.scratch_for<T>(weight_rows(w) * weight_columns(w))) {
    index_t const rows = weight_rows(w), columns = weight_columns(w);
    auto const* const same = std::get_if<matrix_view<T const>>(&w);
    if (same != nullptr && same->contiguous()) {
      copy_to_device(on.stream(), same->data, rows * columns, elements_.data());
    } else {
      index_t const some =
          std::clamp<index_t>((index_t{1} << 22) / std::max<index_t>(columns, 1), 1, std::max<index_t>(rows, 1));
      tensor<float, 2> wide(some, columns);
      buffer<T> narrow(some * columns);
      for (index_t first = 0; first < rows; first += some) {
        index_t const count = std::min(some, rows - first);
        expand_rows(w, first, slimtrim::rows(wide.view(), 0, count));
        for (index_t i = 0; i < count * columns; ++i) narrow[i] = T(wide.view().data[i]);
        copy_to_device(on.stream(), narrow.data(), count * columns, elements_.data() + first * columns);
      }
    }
    source_ = {{device_matrix<T const>(elements_.data(), rows, columns)}, rows, columns, 0};
  }
  [[nodiscard]] padded_rows<half_rows<T, space::device>> const& source() const { return source_; }

 private:
  scratch<T> elements_;
  padded_rows<half_rows<T, space::device>> source_{};
};

template <half_precision T>
[[nodiscard]] tile_weight_view plan_padded(index_t rows, index_t columns, std::optional<code_shape> const& codes) {
  tile_weight_view plan;
  plan.rows = rows;
  plan.columns = padded_extent(columns);
  plan.kind = codes ? tile_kind::codes4 : (std::is_same_v<T, bfloat16> ? tile_kind::bfloat16 : tile_kind::float16);
  if (codes) {
    plan.scale_kind = codes->scale;
    plan.group_shift = codes->group_shift;
  }
  return plan;
}

[[nodiscard]] inline device_tiles make_tiles(tile_weight_view const& plan, bool zeros) {
  device_tiles made;
  made.view = plan;
  made.words = device_buffer<words4>(plan.words_needed());
  made.scales = device_buffer<std::uint16_t>(plan.scales_needed());
  made.zeros = device_buffer<std::uint8_t>(zeros ? plan.scales_needed() : 0);
  made.view.words = made.words.data();
  made.view.scales = made.scales.data();
  made.view.zeros = zeros ? made.zeros.data() : nullptr;
  return made;
}

[[nodiscard]] inline bool has_zeros(weight_view const& w) {
  auto const* const q = std::get_if<quantized_view<>>(&w);
  return q != nullptr && q->zeros.data != nullptr;
}

}  // namespace detail

/// Whether the codes of w go into tiles as they are.
[[nodiscard]] inline bool stays_packed(weight_view const& w) { return detail::code_shape_of(w).has_value(); }

/// The weights one above the other, each padded to whole strips, columns to whole blocks; those whose codes share
/// grouping and scale type, or that are all 16-bit, as one matrix: one product for all. Otherwise one for each, in
/// order.
template <half_precision T>
[[nodiscard]] std::vector<device_tiles> upload_stack(context& on, std::span<weight_view const> parts) {
  std::vector<std::optional<detail::code_shape>> shapes;
  for (weight_view const& w : parts) shapes.push_back(detail::code_shape_of(w));
  bool const alike =
      std::all_of(shapes.begin(), shapes.end(), [&](auto const& shape) { return shape == shapes.front(); });
  std::vector<device_tiles> stacks;
  std::size_t const together = alike ? parts.size() : 1;
  for (std::size_t first = 0; first < parts.size(); first += together) {
    auto const some = parts.subspan(first, together);
    auto const& shape = shapes[first];
    index_t rows = 0;
    for (weight_view const& w : some) rows += padded_extent(weight_rows(w));
    bool const zeros = shape && std::any_of(some.begin(), some.end(), detail::has_zeros);
    device_tiles all = detail::make_tiles(detail::plan_padded<T>(rows, weight_columns(some.front()), shape), zeros);
    index_t above = 0;
    for (weight_view const& w : some) {
      auto const plan = [&](index_t n) { return detail::plan_padded<T>(n, weight_columns(w), shape); };
      tile_weight_view const part = plan(padded_extent(weight_rows(w))), before = plan(above);
      auto const pack = [&](auto const& source) {
        pack_tiles_on_device(on, source, part, all.words.data() + before.words_needed(),
                             all.scales.data() + before.scales_needed(),
                             zeros ? all.zeros.data() + before.scales_needed() : nullptr);
      };
      if (shape) {
        detail::uploaded_codes const raw(on, std::get<quantized_view<>>(w));
        pack(raw.source());
      } else {
        detail::uploaded_halves<T> const raw(on, w);
        pack(raw.source());
      }
      above += part.rows;
    }
    stacks.push_back(std::move(all));
  }
  return stacks;
}

/// One weight, padded to whole tiles of at least `rows` and `columns`. `expanded`: in 16 bits even if its codes would
/// fit.
template <half_precision T>
[[nodiscard]] device_tiles upload_tiles(context& on, weight_view const& w, index_t rows, bool expanded = false,
                                        index_t columns = 0) {
  auto const shape = expanded ? std::nullopt : detail::code_shape_of(w);
  bool const zeros = shape && detail::has_zeros(w);
  device_tiles made = detail::make_tiles(
      detail::plan_padded<T>(padded_extent(rows), std::max(columns, weight_columns(w)), shape), zeros);
  if (shape) {
    detail::uploaded_codes const raw(on, std::get<quantized_view<>>(w));
    pack_tiles_on_device(on, raw.source(), made.view, made.words.data(), made.scales.data(), made.zeros.data());
  } else {
    detail::uploaded_halves<T> const raw(on, w);
    pack_tiles_on_device(on, raw.source(), made.view, made.words.data(), made.scales.data(), made.zeros.data());
  }
  return made;
}

/// A matrix of zeros.
template <half_precision T>
[[nodiscard]] device_tiles zero_tiles(context& on, index_t rows, index_t columns, tile_kind kind) {
  std::optional<detail::code_shape> shape;
  if (kind == tile_kind::codes4) shape.emplace();
  device_tiles made = detail::make_tiles(detail::plan_padded<T>(rows, columns, shape), false);
  check(cudaMemsetAsync(made.words.data(), 0, 16 * static_cast<std::size_t>(made.words.size()), on.stream()),
        "cuda::zero_tiles");
  if (made.scales.size() > 0)
    check(cudaMemsetAsync(made.scales.data(), 0, 2 * static_cast<std::size_t>(made.scales.size()), on.stream()),
          "cuda::zero_tiles");
  return made;
}

/// Whether gate and up can share tiles as codes.
[[nodiscard]] inline bool stay_packed_together(weight_view const& gate, weight_view const& up) {
  auto const shape = detail::code_shape_of(gate);
  return shape && shape == detail::code_shape_of(up);
}

/// Gate and up with rows in turns (tile_weight.hpp), `width` rows of each, padded. `expanded`: in 16 bits.
template <half_precision T>
[[nodiscard]] device_tiles upload_gate_up(context& on, weight_view const& gate, weight_view const& up, index_t width,
                                          bool expanded) {
  auto const shape = expanded || !stay_packed_together(gate, up) ? std::nullopt : detail::code_shape_of(gate);
  bool const zeros = shape && (detail::has_zeros(gate) || detail::has_zeros(up));
  device_tiles made =
      detail::make_tiles(detail::plan_padded<T>(2 * padded_extent(width), weight_columns(gate), shape), zeros);
  auto const pack = [&](auto const& source) {
    pack_tiles_on_device(on, source, made.view, made.words.data(), made.scales.data(), made.zeros.data());
  };
  if (shape) {
    detail::uploaded_codes const a(on, std::get<quantized_view<>>(gate)), b(on, std::get<quantized_view<>>(up));
    pack(fused_rows<detail::padded_rows<code_rows<space::device>>>{a.source(), b.source()});
  } else {
    detail::uploaded_halves<T> const a(on, gate), b(on, up);
    pack(fused_rows<detail::padded_rows<half_rows<T, space::device>>>{a.source(), b.source()});
  }
  return made;
}

/// A weight as plain rows of T, `columns` wide, zero behind its own: [rows, columns].
template <half_precision T>
[[nodiscard]] device_buffer<T> upload_rows(context& on, weight_view const& w, index_t columns) {
  index_t const rows = weight_rows(w);
  device_buffer<T> made(rows * columns);
  detail::uploaded_halves<T> const raw(on, w);
  check(cudaMemsetAsync(made.data(), 0, sizeof(T) * static_cast<std::size_t>(made.size()), on.stream()),
        "cuda::upload_rows");
  copy_elements<T, T>(on, raw.source().from.w, slimtrim::columns(made.matrix(rows, columns), 0, weight_columns(w)));
  return made;
}

/// Floats as they are.
[[nodiscard]] inline device_buffer<float> upload_floats(context& on, std::vector<float> const& values) {
  device_buffer<float> made(static_cast<index_t>(values.size()));
  copy_to_device(on.stream(), values.data(), made.size(), made.data());
  return made;
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
