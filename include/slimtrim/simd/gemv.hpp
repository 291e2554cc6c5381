// Products with few tokens: every weight is read once, at the speed of memory.
#pragma once

#include <slimtrim/core/executor.hpp>
#include <slimtrim/simd/activations.hpp>
#include <slimtrim/simd/interleaved_weight.hpp>
#include <slimtrim/simd/kernel_table.hpp>

#include <algorithm>

namespace slimtrim {
inline namespace v0 {
namespace simd {

/// Panels that lie in memory, or are made from another weight view when a piece needs them.
struct panel_source {
  panel_view plan{};
  weight_view const* raw = nullptr;

  /// Bytes of scratch that a piece of `panels` panels needs.
  [[nodiscard]] index_t scratch_bytes(index_t panels) const { return raw != nullptr ? panels * plan.panel_bytes : 0; }
  /// A view in which panel `first` of the weight is panel 0.
  [[nodiscard]] panel_view at(index_t first, index_t panels, buffer<std::byte>& scratch) const {
    panel_view view = plan;
    view.rows -= first * plan.lanes;
    if (raw == nullptr) {
      view.data += first * plan.panel_bytes;
      return view;
    }
    for (index_t p = 0; p < panels; ++p) write_panel(*raw, plan, first + p, scratch.data() + p * plan.panel_bytes);
    view.data = scratch.data();
    return view;
  }
};

namespace detail {

[[nodiscard]] inline output_rows output_of(matrix_view<float> Y, index_t first_row, index_t first_token) {
  return {Y.data + first_token * Y.stride(0) + first_row * Y.stride(1), Y.stride(0), Y.stride(1),
          Y.extent(1) - first_row};
}

/// Panels in a piece: about 64 KiB of weights, an even number. Depends on the weight alone.
[[nodiscard]] inline index_t panels_a_piece(panel_view const& plan) {
  constexpr index_t piece_bytes = 65536;
  return round_up(std::max<index_t>(piece_bytes / std::max<index_t>(plan.panel_bytes, 1), 1), 2);
}

}  // namespace detail

/// Y = X Wᵀ with panels streamed past the tokens. X: [T, in], Y: [T, out].
///
/// Float activations: sums in float within a group of columns, groups added in order; zero points are taken off once a
/// group. 8-bit activations (`kind`, codes only): bound at rounded_activations. Deterministic for any executor.
inline void gemv(kernel_table const& kernels, executor* run_on, panel_source const& source, activation_kind kind,
                 matrix_view<float const> X, matrix_view<float> Y) {
  ready_activations const ready(X, source.plan, kind, run_on);
  index_t const a_piece = detail::panels_a_piece(source.plan), panels = source.plan.panels();
  // A stretch of tokens stays in the second-level cache while the panels of a piece meet it.
  constexpr index_t tokens_a_piece = 4 * int8_tokens;
  index_t const stretches = ceil_div(X.extent(0), tokens_a_piece);
  parallel_for(run_on, ceil_div(panels, a_piece) * stretches, [&](index_t piece) {
    index_t const first = piece / stretches * a_piece, count = std::min(a_piece, panels - first);
    index_t const begin = piece % stretches * tokens_a_piece, end = std::min(begin + tokens_a_piece, X.extent(0));
    buffer<std::byte> scratch(source.scratch_bytes(count));
    panel_view const view = source.at(first, count, scratch);
    ready.multiply(kernels, view, count, begin, nullptr, end - begin, detail::output_of(Y, first * view.lanes, begin));
  });
}

/// Y = X Wᵀ for row-major weights with contiguous rows, read in place. T is a bfloat16, float16 or float.
template <class T>
void gemv_dense(kernel_table const& kernels, executor* run_on, matrix_view<T const> W, matrix_view<float const> X,
                matrix_view<float> Y) {
  constexpr element_kind kind = detail::kind_of_dense<T>;
  exact_activations const ready(X, kind, kernels.pair_period);
  index_t const row_bytes = std::max<index_t>(W.extent(1), 1) * static_cast<index_t>(sizeof(T));
  index_t const a_piece = round_up(std::max<index_t>(131072 / row_bytes, 1), 4);
  parallel_for(run_on, ceil_div(W.extent(0), a_piece), [&](index_t piece) {
    index_t const first = piece * a_piece, count = std::min(a_piece, W.extent(0) - first);
    for (index_t t = 0; t < X.extent(0); t += few_tokens) {
      output_rows out = detail::output_of(Y, first, t);
      out.rows = count;
      kernels.dense_few(kind, W.data + first * W.stride(0), W.stride(0), W.extent(1), ready.from(t),
                        std::min(few_tokens, X.extent(0) - t), out);
    }
    output_rows all = detail::output_of(Y, first, 0);
    all.rows = count;
    ready.restore(all, 0, nullptr, X.extent(0));
  });
}

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
