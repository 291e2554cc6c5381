// A weight in the layout that the kernels read: rows interleaved by the width of a vector, scales before the codes they
// belong to, every panel of rows one contiguous stretch.
//
// The conversion only moves 32-bit words: row r's word w goes to lane r. Scales take 16 bits where that keeps them. Codes of 2, 3, 5, 6 and 7 bits are stored as
// 4 or 8, which changes no value. Weights that do not fit (groups that are not whole blocks of 32 columns, columns in
// activation order, non-finite float16) are left to the generic product.
#pragma once

#include <slimtrim/core/executor.hpp>
#include <slimtrim/linalg/weight.hpp>
#include <slimtrim/simd/kernel_table.hpp>
#include <slimtrim/simd/weight_arena.hpp>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace slimtrim {
inline namespace v0 {
namespace simd {

namespace detail {

template <class T>
inline constexpr element_kind kind_of_dense = std::is_same_v<T, bfloat16>  ? element_kind::bfloat16_pairs
                                              : std::is_same_v<T, float16> ? element_kind::float16_pairs
                                                                           : element_kind::floats;

[[nodiscard]] inline panel_view with_sizes(panel_view plan, index_t rows, index_t columns, index_t lanes) {
  plan.rows = rows;
  plan.columns = columns;
  plan.lanes = lanes;
  plan.blocks = ceil_div(columns, block_columns);
  if (plan.group_blocks <= 0 || plan.group_blocks > plan.blocks) plan.group_blocks = std::max<index_t>(plan.blocks, 1);
  plan.panel_bytes = plan.size_of_panel();
  return plan;
}

[[nodiscard]] inline std::optional<panel_view> plan_of(quantized_view<> const& w, index_t lanes) {
  bool const whole_blocks = w.block_columns > 0 && w.block_columns % block_columns == 0;
  if (w.column_group != nullptr || w.bits < 1 || w.bits > 8) return std::nullopt;
  if (!whole_blocks && w.block_columns < w.columns) return std::nullopt;
  panel_view plan;
  plan.kind = w.bits <= 4 ? element_kind::codes4 : element_kind::codes8;
  plan.has_zeros = w.zeros.data != nullptr;
  plan.middle = static_cast<float>(1 << (w.bits - 1));
  plan.group_blocks = whole_blocks ? w.block_columns / block_columns : 0;
  return with_sizes(plan, w.rows, w.columns, lanes);
}
template <class T>
[[nodiscard]] std::optional<panel_view> plan_of(matrix_view<T const> const& w, index_t lanes) {
  panel_view plan;
  plan.kind = kind_of_dense<T>;
  plan.group_blocks = 0;
  return with_sizes(plan, w.extent(0), w.extent(1), lanes);
}
template <class T>
[[nodiscard]] std::optional<panel_view> plan_of(masked_view<T> const& w, index_t lanes) {
  return plan_of(matrix_view<T const>(w.values), lanes);
}
[[nodiscard]] inline std::optional<panel_view> plan_of(prepared_view const&, index_t) { return std::nullopt; }

// Words of `row` to every lanes-th word from `to`: `count` words.
inline void scatter_words(std::byte const* row, index_t count, std::uint32_t* to, index_t lanes) {
  for (index_t w = 0; w < count; ++w) std::memcpy(to + w * lanes, row + 4 * w, 4);
}

inline void write_row_words(quantized_view<> const& w, panel_view const& plan, index_t r, index_t first, index_t columns,
                            std::uint32_t* to) {
  index_t const bits = bits_of(plan.kind), a_word = 32 / bits;
  std::uint32_t const* const from = w.words + r * w.words_per_row;
  if (w.bits == bits) {
    scatter_words(reinterpret_cast<std::byte const*>(from + first / a_word), ceil_div(columns, a_word), to, plan.lanes);
    return;
  }
  for (index_t c = 0; c < columns; ++c)
    to[c / a_word * plan.lanes] |= w.code(r, first + c) << (c % a_word * bits);
}

template <class T, class Read>
void write_row_elements(Read&& read, panel_view const& plan, index_t columns, std::uint32_t* to) {
  if constexpr (sizeof(T) == 4) {
    for (index_t c = 0; c < columns; ++c) to[c * plan.lanes] = bits_as<std::uint32_t>(read(c));
  } else {
    for (index_t c = 0; c < columns; ++c)
      to[c / 2 * plan.lanes] |= std::uint32_t{read(c).bits} << (c % 2 * 16);
  }
}

template <class T>
void write_row_words(matrix_view<T const> const& w, panel_view const& plan, index_t r, index_t first, index_t columns,
                     std::uint32_t* to) {
  constexpr index_t a_word = 4 / static_cast<index_t>(sizeof(T));
  if (w.stride(1) == 1 || w.extent(1) == 1) {
    auto const* const from = reinterpret_cast<std::byte const*>(w.data + r * w.stride(0) + first);
    index_t const whole = columns / a_word;
    scatter_words(from, whole, to, plan.lanes);
    if (whole * a_word < columns) std::memcpy(to + whole * plan.lanes, from + 4 * whole, sizeof(T));
  } else {
    write_row_elements<T>([&](index_t c) { return w(r, first + c); }, plan, columns, to);
  }
}

template <class T>
void write_row_words(masked_view<T> const& w, panel_view const& plan, index_t r, index_t first, index_t columns,
                     std::uint32_t* to) {
  write_row_elements<T>([&](index_t c) { return w.mask(r, first + c) ? w.values(r, first + c) : T(0.0F); }, plan, columns,
                        to);
}

inline void write_scale(scale_kind kind, float value, index_t at, std::byte* head) {
  switch (kind) {
    case scale_kind::floats: reinterpret_cast<float*>(head)[at] = value; return;
    case scale_kind::bfloat16s: reinterpret_cast<bfloat16*>(head)[at] = bfloat16(value); return;
    case scale_kind::float16s: reinterpret_cast<float16*>(head)[at] = float16(value); return;
  }
}
[[nodiscard]] inline float read_scale(scale_kind kind, std::byte const* head, index_t at) {
  switch (kind) {
    case scale_kind::floats: return reinterpret_cast<float const*>(head)[at];
    case scale_kind::bfloat16s: return static_cast<float>(reinterpret_cast<bfloat16 const*>(head)[at]);
    case scale_kind::float16s: return static_cast<float>(reinterpret_cast<float16 const*>(head)[at]);
  }
  return 0;
}

inline void write_head(quantized_view<> const& w, panel_view const& plan, index_t r, index_t lane, index_t group,
                       std::byte* head) {
  write_scale(plan.scales, w.scales(r / w.block_rows, group), lane, head);
  if (plan.has_zeros)
    write_scale(plan.scales, static_cast<float>(w.zeros(r / w.block_rows, group)), plan.lanes + lane, head);
}
template <class W>
void write_head(W const&, panel_view const&, index_t, index_t, index_t, std::byte*) {}

// The smallest storage that keeps every scale; zero points, at most 255, fit all of them.
[[nodiscard]] inline scale_kind kind_of_scales(quantized_view<> const& w) {
  bool brain = true, half = true;
  for (index_t i = 0; i < w.scales.extent(0); ++i)
    for (index_t g = 0; g < w.scales.extent(1); ++g) {
      float const scale = w.scales(i, g);
      brain = brain && bits_as<std::uint32_t>(static_cast<float>(bfloat16(scale))) == bits_as<std::uint32_t>(scale);
      half = half && bits_as<std::uint32_t>(static_cast<float>(float16(scale))) == bits_as<std::uint32_t>(scale);
    }
  return brain ? scale_kind::bfloat16s : half ? scale_kind::float16s : scale_kind::floats;
}

template <class T>
[[nodiscard]] bool all_finite(matrix_view<T const> const& w) {
  if constexpr (std::is_same_v<T, float16>) {
    for (index_t i = 0; i < w.extent(0); ++i)
      for (index_t j = 0; j < w.extent(1); ++j)
        if ((w(i, j).bits & 0x7c00U) == 0x7c00U) return false;
  }
  return true;
}

}  // namespace detail

/// The layout that a weight would take in panels of `lanes` rows, without its data; nothing when it does not fit.
[[nodiscard]] inline std::optional<panel_view> plan_panels(weight_view const& w, index_t lanes) {
  return std::visit([&](auto const& view) { return detail::plan_of(view, lanes); }, w);
}

/// Writes panel `panel` of w to `out`, plan.panel_bytes bytes that must be aligned for floats. O(lanes * columns).
inline void write_panel(weight_view const& w, panel_view const& plan, index_t panel, std::byte* out) {
  std::visit(
      [&](auto const& view) {
        if constexpr (!std::is_same_v<std::remove_cvref_t<decltype(view)>, prepared_view>) {
          std::memset(out, 0, static_cast<std::size_t>(plan.panel_bytes));
          index_t const first_row = panel * plan.lanes;
          for (index_t lane = 0; lane < std::min(plan.lanes, plan.rows - first_row); ++lane) {
            for (index_t group = 0; group < plan.groups(); ++group) {
              if (plan.quantised())
                detail::write_head(view, plan, first_row + lane, lane, group, out + plan.head_at(group));
              index_t const first = group * plan.group_blocks;
              index_t const blocks = std::min(plan.group_blocks, plan.blocks - first);
              index_t const columns = std::min(blocks * block_columns, plan.columns - first * block_columns);
              detail::write_row_words(view, plan, first_row + lane, first * block_columns, columns,
                                      reinterpret_cast<std::uint32_t*>(out + plan.words_at(first)) + lane);
            }
          }
        }
      },
      w);
}

/// A weight converted once: the panels, and what keeps their memory. Its values are those of the weight it came from.
struct interleaved_weight {
  panel_view view{};
  std::shared_ptr<std::byte const> memory{};
};

/// Row r as floats, bit for bit what expand_rows gives for the weight that was interleaved. out: [columns].
inline void expand_row(panel_view const& view, index_t r, float* out) {
  index_t const lane = r % view.lanes, bits = bits_of(view.kind), a_word = 32 / bits;
  std::byte const* const panel = view.data + r / view.lanes * view.panel_bytes;
  for (index_t block = 0; block < view.blocks; ++block) {
    float scale = 1, zero = 0;
    if (view.quantised()) {
      std::byte const* const head = panel + view.head_at(block / view.group_blocks);
      scale = detail::read_scale(view.scales, head, lane);
      zero = view.has_zeros ? detail::read_scale(view.scales, head, view.lanes + lane) : view.middle;
    }
    auto const* const words = reinterpret_cast<std::uint32_t const*>(panel + view.words_at(block));
    index_t const count = std::min(block_columns, view.columns - block * block_columns);
    for (index_t c = 0; c < count; ++c) {
      std::uint32_t const word = words[c / a_word * view.lanes + lane];
      std::uint32_t const field = bits == 32 ? word : (word >> (c % a_word * bits)) & ((1U << bits) - 1U);
      float value = 0;
      switch (view.kind) {
        case element_kind::codes4:
        case element_kind::codes8: value = (static_cast<float>(field) - zero) * scale; break;
        case element_kind::bfloat16_pairs:
          value = static_cast<float>(bfloat16::from_bits(static_cast<std::uint16_t>(field)));
          break;
        case element_kind::float16_pairs:
          value = static_cast<float>(float16::from_bits(static_cast<std::uint16_t>(field)));
          break;
        case element_kind::floats: value = bits_as<float>(field); break;
      }
      out[block * block_columns + c] = value;
    }
  }
}

/// Converts a weight for kernels of `lanes` rows a panel, in memory of `arena`. Nothing when it does not fit the layout.
/// O(rows * columns), one pass. Pieces run on `run_on`.
[[nodiscard]] inline std::optional<interleaved_weight> interleave(weight_view const& w, index_t lanes,
                                                                  weight_arena& arena, executor* run_on = nullptr) {
  auto plan = plan_panels(w, lanes);
  if (!plan) return std::nullopt;
  if (auto const* half = std::get_if<matrix_view<float16 const>>(&w); half && !detail::all_finite(*half))
    return std::nullopt;
  if (auto const* half = std::get_if<masked_view<float16>>(&w);
      half && !detail::all_finite(matrix_view<float16 const>(half->values)))
    return std::nullopt;
  if (auto const* codes = std::get_if<quantized_view<>>(&w)) {
    plan->scales = detail::kind_of_scales(*codes);
    plan->panel_bytes = plan->size_of_panel();
  }
  auto memory = arena.allocate(plan->panels() * plan->panel_bytes);
  std::byte* const data = memory.get();
  constexpr index_t panels_a_piece = 8;
  parallel_for(run_on, ceil_div(plan->panels(), panels_a_piece), [&](index_t piece) {
    index_t const last = std::min(plan->panels(), (piece + 1) * panels_a_piece);
    for (index_t p = piece * panels_a_piece; p < last; ++p) write_panel(w, *plan, p, data + p * plan->panel_bytes);
  });
  plan->data = data;
  return interleaved_weight{*plan, std::move(memory)};
}

/// The tag in prepared_view::layout of weights whose `data` is an interleaved_weight.
inline constexpr char interleaved_layout = 0;

/// The same weight with a view that any product takes: fast on a simd_backend, by expanded rows elsewhere.
[[nodiscard]] inline weight as_weight(interleaved_weight converted) {
  auto held = std::make_shared<interleaved_weight const>(std::move(converted));
  prepared_view view;
  view.rows = held->view.rows;
  view.columns = held->view.columns;
  view.layout = &interleaved_layout;
  view.data = held.get();
  view.expand = [](void const* data, index_t row, float* out) {
    expand_row(static_cast<interleaved_weight const*>(data)->view, row, out);
  };
  weight result;
  result.view = view;
  result.storage = std::move(held);
  return result;
}

/// The panels behind a prepared view of this layout; null for any other.
[[nodiscard]] inline panel_view const* panels_of(weight_view const& w) {
  auto const* prepared = std::get_if<prepared_view>(&w);
  if (prepared == nullptr || prepared->layout != &interleaved_layout) return nullptr;
  return &static_cast<interleaved_weight const*>(prepared->data)->view;
}

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
