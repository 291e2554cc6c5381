// The mixture-of-experts layer for few tokens in two sweeps over the weights: gate, up and SiLU of every expert that was
// chosen, with 8-bit activations rounded on the spot, then down and the weighted sum. No token is copied for an expert;
// kernels take rows by index.
//
// It stands in for moe_layer of model/moe.hpp, which calls a backend's member of that name. Everything it does not
// cover (many tokens, weights that were not prepared, factors on the input) goes back to the generic layer.
#pragma once

#include <slimtrim/core/executor.hpp>
#include <slimtrim/linalg/product.hpp>
#include <slimtrim/router/dispatch.hpp>
#include <slimtrim/router/route.hpp>
#include <slimtrim/simd/gemv.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace simd {

namespace detail {

// Bytes of one weight's panels in a piece; a piece meets two weights, or one of every expert.
inline constexpr index_t moe_piece_bytes = 131072;

/// One expert at work: its panels, the tokens that chose it with their factors, and where its hidden rows are kept.
struct active_expert {
  panel_view const* gate = nullptr;
  panel_view const* up = nullptr;
  panel_view const* down = nullptr;
  float const* novice = nullptr;          // the constant output of a novice, which has no panels
  std::int32_t const* tokens = nullptr;   // none: all of them
  std::vector<float> factors;
  index_t count = 0;
  index_t first_hidden = 0;               // in floats, of the [count, width] matrix of this expert
  index_t panels_a_piece = 0;             // of gate and up
  ready_activations const* for_gate = nullptr;
  ready_activations const* for_up = nullptr;
  std::unique_ptr<ready_activations> hidden;
};

template <class Swiglu>
[[nodiscard]] bool has_panels(Swiglu const& expert) {
  return panels_of(expert.gate.view) != nullptr && panels_of(expert.up.view) != nullptr &&
         panels_of(expert.down.view) != nullptr;
}

template <class Swiglu>
void take_panels(Swiglu const& expert, active_expert& active) {
  active.gate = panels_of(expert.gate.view);
  active.up = panels_of(expert.up.view);
  active.down = panels_of(expert.down.view);
}

[[nodiscard]] inline bool all_rounded(std::vector<active_expert> const& experts) {
  return std::all_of(experts.begin(), experts.end(),
                     [](active_expert const& each) { return each.novice != nullptr || each.hidden != nullptr; });
}

[[nodiscard]] inline panel_view panels_from(panel_view const& view, index_t first) {
  panel_view part = view;
  part.rows -= first * view.lanes;
  part.data += first * view.panel_bytes;
  return part;
}

// The layer of model/moe.hpp, found through its arguments when this is instantiated: a backend without a MoE layer of
// its own takes it, and this floor need not include that one.
template <class Backend, class Weights, class Work>
void generic_moe_layer(Backend const& backend, Weights const& weights, matrix_view<float const> X, matrix_view<float> Y,
                       Work& work) {
  moe_layer(backend, weights, index_t{0}, X, Y, work);
}

}  // namespace detail

/// Whether fused_experts covers this layer and number of tokens.
template <class Weights>
[[nodiscard]] bool covers_moe_layer(Weights const& weights, index_t tokens, index_t most_tokens) {
  if (tokens > most_tokens || weights.rule.weight_scales_input) return false;
  if (weights.shared && !detail::has_panels(*weights.shared)) return false;
  return std::all_of(weights.experts.begin(), weights.experts.end(), [](auto const& expert) {
    return expert.is_novice() || detail::has_panels(expert.swiglu);
  });
}

/// Y = shared(X) + sum over experts e of w_e(x) E_e(x), E(x) = down (silu(gate x) * up x), experts added in ascending
/// order. X: [T, hidden], Y: [T, hidden] (overwritten, contiguous rows). indices, factors: [T, top_k] as `route` gives
/// them. Work is cut into rows of one expert for gate and up, and into rows of all experts for down, by the size of the
/// weights alone, so results are the same for any executor. Extents are those of the layer that read the weights. `within_piece` is a backend
/// without an executor, on which silu_multiply of model/elementwise.hpp (found by its arguments) works inside a piece.
template <class Backend, class Weights>
void fused_experts(kernel_table const& kernels, executor* run_on, activation_kind kind, Backend const& within_piece,
                   Weights const& weights, dispatch const& groups, matrix_view<float const> factors,
                   matrix_view<float const> X, matrix_view<float> Y) {
  using detail::active_expert;
  std::vector<active_expert> active;
  shared_activations inputs(kernels, X, kind);
  index_t const tokens = X.extent(0), lanes = kernels.lanes;
  index_t hidden_floats = 0, panels_of_down = round_up(index_t{1}, std::max<index_t>(block_columns / lanes, 2));
  detail::joined_pieces pieces;
  auto admit = [&](active_expert expert) {
    if (expert.novice != nullptr) {
      pieces.add(0);
    } else {
      expert.for_gate = &inputs.ready_for(*expert.gate);
      expert.for_up = &inputs.ready_for(*expert.up);
      if (kind == activation_kind::int8 && expert.down->quantised())
        expert.hidden = std::make_unique<ready_activations>(kernels, expert.count, *expert.down);
      expert.panels_a_piece = detail::panels_a_piece(*expert.gate, detail::moe_piece_bytes);
      panels_of_down = std::max(panels_of_down, detail::panels_a_piece(*expert.down, detail::moe_piece_bytes));
      pieces.add(ceil_div(expert.gate->panels(), expert.panels_a_piece));
      expert.first_hidden = hidden_floats;
      hidden_floats += round_up(expert.count * expert.gate->rows, 16);
    }
    active.push_back(std::move(expert));
  };
  if (weights.shared) {
    active_expert shared;
    detail::take_panels(*weights.shared, shared);
    shared.count = tokens;
    shared.factors.assign(static_cast<std::size_t>(tokens), 1.0F);
    admit(std::move(shared));
  }
  for (index_t e = 0; e < groups.experts(); ++e) {
    auto const chosen = groups.tokens_of(e), slots = groups.slots_of(e);
    if (chosen.empty()) continue;
    auto const& expert = weights.experts[static_cast<std::size_t>(e)];
    active_expert one;
    one.tokens = chosen.data();
    one.count = static_cast<index_t>(chosen.size());
    for (std::size_t i = 0; i < chosen.size(); ++i) one.factors.push_back(factors(chosen[i], slots[i]));
    if (expert.is_novice()) {
      one.novice = expert.novice.data();
    } else {
      detail::take_panels(expert.swiglu, one);
    }
    admit(std::move(one));
  }

  buffer<float> hidden(hidden_floats);
  auto hidden_of = [&](active_expert const& expert) {
    return matrix_view<float>(hidden.data() + expert.first_hidden, expert.count, expert.gate->rows);
  };
  parallel_for(run_on, pieces.count(), [&](index_t piece) {
    active_expert& expert = active[pieces.job_of(piece)];
    index_t const first = piece * expert.panels_a_piece;
    index_t const count = std::min(expert.panels_a_piece, expert.gate->panels() - first);
    index_t const row = first * lanes, rows = std::min(count * lanes, expert.gate->rows - row);
    matrix_view<float> const H = hidden_of(expert);
    buffer<float> up(expert.count * rows);
    expert.for_gate->multiply(detail::panels_from(*expert.gate, first), count, 0, expert.tokens, expert.count,
                              detail::output_of(H, row, 0));
    expert.for_up->multiply(detail::panels_from(*expert.up, first), count, 0, expert.tokens, expert.count,
                            {up.data(), rows, 1, rows});
    silu_multiply(within_piece, columns(H, row, rows), matrix_view<float const>(up.data(), expert.count, rows));
    // Pieces begin at whole blocks of columns of what comes next.
    if (expert.hidden)
      for (index_t t = 0; t < expert.count; ++t) expert.hidden->round(t, row, &H(t, row), rows);
  });
  if (kind == activation_kind::floating || !detail::all_rounded(active))
    parallel_for(run_on, static_cast<index_t>(active.size()), [&](index_t e) {
      active_expert& expert = active[static_cast<std::size_t>(e)];
      if (expert.novice == nullptr && !expert.hidden)
        expert.hidden = std::make_unique<ready_activations>(kernels, as_const(hidden_of(expert)), *expert.down, kind);
    });

  index_t const width = Y.extent(1), rows_a_piece = panels_of_down * lanes;
  parallel_for(run_on, ceil_div(width, rows_a_piece), [&](index_t piece) {
    index_t const row = piece * rows_a_piece, rows = std::min(rows_a_piece, width - row);
    for (index_t t = 0; t < tokens; ++t) std::fill_n(&Y(t, row), rows, 0.0F);
    buffer<float> out(tokens * rows);
    for (active_expert const& expert : active) {
      if (expert.novice == nullptr)
        expert.hidden->multiply(detail::panels_from(*expert.down, row / lanes), ceil_div(rows, lanes), 0, nullptr,
                                expert.count, {out.data(), rows, 1, rows});
      for (index_t t = 0; t < expert.count; ++t) {
        float* const y = &Y(expert.tokens != nullptr ? expert.tokens[t] : t, row);
        float const* const from = expert.novice != nullptr ? expert.novice + row : out.data() + t * rows;
        float const factor = expert.factors[static_cast<std::size_t>(t)];
        for (index_t r = 0; r < rows; ++r) y[r] += factor * from[r];
      }
    }
  });
}

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
