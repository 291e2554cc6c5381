// An observer whose type is not known where the layer runs: the hooks that it has, each a function.
#pragma once

#include <slimtrim/model/observer.hpp>

#include <algorithm>
#include <functional>
#include <span>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Sums over rows that an accelerator adds up where the rows are, for observers that would do nothing else with them:
/// H += sum over rows of f² x xᵀ, where f is the row's count and, if `weighted`, the router's weight. H: [d, d].
struct gram_sums {
  struct sum {
    matrix_view<float> H{};  ///< no data: not wanted
    bool weighted = false;
    [[nodiscard]] bool wanted() const { return H.data != nullptr; }
  };
  sum attention_context{};                 ///< rows as attention_context has them, with counts
  sum feed_forward_input{};                ///< without counts
  sum every_token_hidden{};                ///< shared_hidden or dense_hidden, with counts
  std::vector<sum> expert_input{};         ///< by expert, or empty; with counts
  std::vector<sum> expert_hidden{};
  std::span<float const> counts{};         ///< of the rows of the call; empty: one each
  double* tokens = nullptr;                ///< by expert, or null: the rows that it met are added
  double* squares = nullptr;               ///< by expert, or null: the squares of the f of its inputs are added

  /// Whether any of them is inside the MoE part.
  [[nodiscard]] bool inside() const {
    auto const some = [](std::vector<sum> const& all) {
      return std::any_of(all.begin(), all.end(), [](sum const& s) { return s.wanted(); });
    };
    return every_token_hidden.wanted() || tokens != nullptr || some(expert_input) || some(expert_hidden);
  }
};

/// The hooks of observer.hpp inside a layer. Empty ones are not called, and what only they would see is not made.
struct layer_hooks {
  using rows_hook = std::function<void(matrix_view<float const>)>;
  using expert_hook = std::function<void(expert_batch const&, matrix_view<float const>)>;
  rows_hook attention_input{}, attention_context{}, attention_residual{}, feed_forward_input{}, shared_hidden{},
      dense_hidden{}, feed_forward_output{};
  std::function<void(routing_result const&)> router_result{};
  expert_hook expert_input{}, expert_hidden{}, expert_output{};
  gram_sums const* sums = nullptr;  ///< only for an accelerator that adds up

  /// Whether anybody looks inside the MoE part.
  [[nodiscard]] bool inside() const {
    return shared_hidden || dense_hidden || router_result || expert_input || expert_hidden || expert_output ||
           (sums != nullptr && sums->inside());
  }
};

/// The hooks that `observer` has, for layer `layer`. `observer` must outlive them.
template <class Observer>
[[nodiscard]] layer_hooks hooks_of(Observer& observer, index_t layer) {
  layer_hooks hooks;
  matrix_view<float const> const rows;
  if constexpr (requires { observer.attention_input(layer, rows); })
    hooks.attention_input = [&observer, layer](matrix_view<float const> x) { observer.attention_input(layer, x); };
  if constexpr (requires { observer.attention_context(layer, rows); })
    hooks.attention_context = [&observer, layer](matrix_view<float const> x) { observer.attention_context(layer, x); };
  if constexpr (requires { observer.attention_residual(layer, rows); })
    hooks.attention_residual = [&observer, layer](matrix_view<float const> x) {
      observer.attention_residual(layer, x);
    };
  if constexpr (requires { observer.feed_forward_input(layer, rows); })
    hooks.feed_forward_input = [&observer, layer](matrix_view<float const> x) {
      observer.feed_forward_input(layer, x);
    };
  if constexpr (requires { observer.shared_hidden(layer, rows); })
    hooks.shared_hidden = [&observer, layer](matrix_view<float const> x) { observer.shared_hidden(layer, x); };
  if constexpr (requires { observer.dense_hidden(layer, rows); })
    hooks.dense_hidden = [&observer, layer](matrix_view<float const> x) { observer.dense_hidden(layer, x); };
  if constexpr (requires { observer.feed_forward_output(layer, rows); })
    hooks.feed_forward_output = [&observer, layer](matrix_view<float const> x) {
      observer.feed_forward_output(layer, x);
    };
  if constexpr (requires(routing_result const& r) { observer.router_result(layer, r); })
    hooks.router_result = [&observer, layer](routing_result const& r) { observer.router_result(layer, r); };
  if constexpr (requires(expert_batch const& b) { observer.expert_input(layer, b, rows); })
    hooks.expert_input = [&observer, layer](expert_batch const& b, matrix_view<float const> x) {
      observer.expert_input(layer, b, x);
    };
  if constexpr (requires(expert_batch const& b) { observer.expert_hidden(layer, b, rows); })
    hooks.expert_hidden = [&observer, layer](expert_batch const& b, matrix_view<float const> x) {
      observer.expert_hidden(layer, b, x);
    };
  if constexpr (requires(expert_batch const& b) { observer.expert_output(layer, b, rows); })
    hooks.expert_output = [&observer, layer](expert_batch const& b, matrix_view<float const> x) {
      observer.expert_output(layer, b, x);
    };
  return hooks;
}

}  // namespace v0
}  // namespace slimtrim
