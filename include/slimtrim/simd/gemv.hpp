// Products with few tokens: every weight is read once, at the speed of memory.
#pragma once

#include <slimtrim/core/executor.hpp>
#include <slimtrim/simd/activations.hpp>
#include <slimtrim/simd/interleaved_weight.hpp>
#include <slimtrim/simd/kernel_table.hpp>

#include <algorithm>
#include <span>
#include <vector>

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

/// Panels in a piece: about `bytes` of weights and whole vectors of rows. Depends on the weight alone.
[[nodiscard]] inline index_t panels_a_piece(panel_view const& plan, index_t bytes) {
  index_t const panels = std::max<index_t>(bytes / std::max<index_t>(plan.panel_bytes, 1), 1);
  return round_up(panels, std::max<index_t>(block_columns / plan.lanes, 2));
}

/// The pieces of several jobs in a row.
class joined_pieces {
 public:
  void add(index_t count) { first_.push_back(first_.back() + count); }
  [[nodiscard]] index_t count() const { return first_.back(); }
  /// The job that `piece` belongs to; `piece` becomes its number within the job.
  [[nodiscard]] std::size_t job_of(index_t& piece) const {
    auto const job = std::upper_bound(first_.begin(), first_.end(), piece) - first_.begin() - 1;
    piece -= first_[static_cast<std::size_t>(job)];
    return static_cast<std::size_t>(job);
  }

 private:
  std::vector<index_t> first_{0};
};

}  // namespace detail

/// One of several products with the same activations: Y = X Wᵀ.
struct panel_product {
  panel_source source{};
  matrix_view<float> Y{};
};

/// Every Y = X Wᵀ with panels streamed past the tokens. X: [T, in], Y: [T, out].
///
/// Float activations: sums in float within a group of columns, groups added in order; zero points are taken off once a
/// group. 8-bit activations (`kind`, codes only): bound at rounded_activations. Deterministic for any executor.
inline void gemv(kernel_table const& kernels, executor* run_on, std::span<panel_product const> products,
                 activation_kind kind, matrix_view<float const> X) {
  // A stretch of tokens stays in the second-level cache while the panels of a piece meet it. Panels that must be made
  // first are made for four times as many.
  constexpr index_t bytes_a_piece = 32768;
  auto const tokens_a_piece = [](panel_source const& source) { return index_t{source.raw != nullptr ? 512 : 128}; };
  auto const stretches_of = [&](panel_source const& source) { return ceil_div(X.extent(0), tokens_a_piece(source)); };
  shared_activations activations(kernels, X, kind, run_on);
  std::vector<ready_activations const*> ready;
  detail::joined_pieces pieces;
  for (panel_product const& each : products) {
    panel_view const& plan = each.source.plan;
    ready.push_back(&activations.ready_for(plan));
    pieces.add(ceil_div(plan.panels(), detail::panels_a_piece(plan, bytes_a_piece)) * stretches_of(each.source));
  }
  parallel_for(run_on, pieces.count(), [&](index_t piece) {
    std::size_t const job = pieces.job_of(piece);
    panel_source const& source = products[job].source;
    index_t const a_piece = detail::panels_a_piece(source.plan, bytes_a_piece), stretches = stretches_of(source);
    index_t const first = piece / stretches * a_piece, count = std::min(a_piece, source.plan.panels() - first);
    index_t const begin = piece % stretches * tokens_a_piece(source);
    index_t const end = std::min(begin + tokens_a_piece(source), X.extent(0));
    buffer<std::byte> scratch(source.scratch_bytes(count));
    panel_view const view = source.at(first, count, scratch);
    ready[job]->multiply(view, count, begin, nullptr, end - begin,
                         detail::output_of(products[job].Y, first * view.lanes, begin));
  });
}

/// The same for one weight.
inline void gemv(kernel_table const& kernels, executor* run_on, panel_source const& source, activation_kind kind,
                 matrix_view<float const> X, matrix_view<float> Y) {
  panel_product const one{source, Y};
  gemv(kernels, run_on, std::span(&one, 1), kind, X);
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
