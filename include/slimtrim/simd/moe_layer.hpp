// The mixture-of-experts layer for few tokens in two sweeps over the weights: gate, up and SiLU of every expert that was
// chosen, then down and the weighted sum. No token is copied for an expert; kernels take rows by index.
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

inline constexpr index_t moe_piece_panels = 16;

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

// Activations that suit `plan`, made at the first call for it.
[[nodiscard]] inline ready_activations const* ready_for(panel_view const& plan, matrix_view<float const> X,
                                                        activation_kind kind,
                                                        std::vector<std::unique_ptr<ready_activations>>& all) {
  for (auto const& each : all)
    if (each->suit(plan)) return each.get();
  all.push_back(std::make_unique<ready_activations>(X, plan, kind));
  return all.back().get();
}

// Pieces of all experts in a row: `first[e]` is the first piece of expert e.
template <class PanelsOf>
[[nodiscard]] std::vector<index_t> pieces_before(std::vector<active_expert> const& experts, PanelsOf&& panels_of_expert) {
  std::vector<index_t> first{0};
  for (auto const& expert : experts)
    first.push_back(first.back() + ceil_div(panels_of_expert(expert), moe_piece_panels));
  return first;
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
/// them. Work is cut into (expert, 16 panels) for gate and up, and into 16 panels of all experts for down, so results
/// are the same for any executor. Extents are those of the layer that read the weights. `within_piece` is a backend
/// without an executor, on which silu_multiply of model/elementwise.hpp (found by its arguments) works inside a piece.
template <class Backend, class Weights>
void fused_experts(kernel_table const& kernels, executor* run_on, activation_kind kind, Backend const& within_piece,
                   Weights const& weights, dispatch const& groups, matrix_view<float const> factors,
                   matrix_view<float const> X, matrix_view<float> Y) {
  using detail::active_expert;
  std::vector<active_expert> active;
  std::vector<std::unique_ptr<ready_activations>> inputs;
  index_t const tokens = X.extent(0), lanes = kernels.lanes;
  index_t hidden_floats = 0;
  auto admit = [&](active_expert expert) {
    if (expert.novice == nullptr) {
      expert.for_gate = detail::ready_for(*expert.gate, X, kind, inputs);
      expert.for_up = detail::ready_for(*expert.up, X, kind, inputs);
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
  auto const pieces = detail::pieces_before(
      active, [](active_expert const& expert) { return expert.novice != nullptr ? index_t{0} : expert.gate->panels(); });
  parallel_for(run_on, pieces.back(), [&](index_t piece) {
    auto const e = static_cast<std::size_t>(std::upper_bound(pieces.begin(), pieces.end(), piece) - pieces.begin() - 1);
    active_expert const& expert = active[e];
    index_t const first = (piece - pieces[e]) * detail::moe_piece_panels;
    index_t const count = std::min(detail::moe_piece_panels, expert.gate->panels() - first);
    index_t const row = first * lanes, rows = std::min(count * lanes, expert.gate->rows - row);
    matrix_view<float> const H = hidden_of(expert);
    buffer<float> up(expert.count * rows);
    expert.for_gate->multiply(kernels, detail::panels_from(*expert.gate, first), count, 0, expert.tokens, expert.count,
                              detail::output_of(H, row, 0));
    expert.for_up->multiply(kernels, detail::panels_from(*expert.up, first), count, 0, expert.tokens, expert.count,
                            {up.data(), rows, 1, rows});
    silu_multiply(within_piece, columns(H, row, rows), matrix_view<float const>(up.data(), expert.count, rows));
  });

  parallel_for(run_on, static_cast<index_t>(active.size()), [&](index_t e) {
    active_expert& expert = active[static_cast<std::size_t>(e)];
    if (expert.novice == nullptr)
      expert.hidden = std::make_unique<ready_activations>(as_const(hidden_of(expert)), *expert.down, kind);
  });

  index_t const width = Y.extent(1), rows_a_piece = detail::moe_piece_panels * lanes;
  parallel_for(run_on, ceil_div(width, rows_a_piece), [&](index_t piece) {
    index_t const row = piece * rows_a_piece, rows = std::min(rows_a_piece, width - row);
    for (index_t t = 0; t < tokens; ++t) std::fill_n(&Y(t, row), rows, 0.0F);
    buffer<float> out(tokens * rows);
    for (active_expert const& expert : active) {
      if (expert.novice == nullptr)
        expert.hidden->multiply(kernels, detail::panels_from(*expert.down, row / lanes), ceil_div(rows, lanes), 0, nullptr,
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
