// The mixture-of-experts part of a decoder layer: y = sum over selected experts of weight_i * E_i(x) + shared(x).
//
// Tokens are grouped by expert, so that each expert is three matrix products over the rows that chose it. Experts are
// added one after another, in ascending order, so the sum does not depend on the number of threads.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/linalg/product.hpp>
#include <slimtrim/model/decoder_layer.hpp>
#include <slimtrim/model/feed_forward.hpp>
#include <slimtrim/model/observer.hpp>
#include <slimtrim/model/workspace.hpp>
#include <slimtrim/router/dispatch.hpp>
#include <slimtrim/router/route.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {

/// A backend with a MoE layer of its own. It is asked only when nobody observes the layer's inside.
template <class B>
concept fuses_moe_layer = requires(B const& b, moe_weights const& weights, matrix_view<float const, B::memory> X,
                                   matrix_view<float, B::memory> Y, forward_workspace& work) {
  b.moe_layer(weights, X, Y, work);
};

namespace detail {

inline constexpr index_t moe_rows_a_piece = 32;

// Y[tokens[i]] += factors[i] * rows(i), rows being a matrix or one vector for all.
template <class RowAt>
void add_weighted_rows(executor* run_on, std::span<std::int32_t const> tokens, std::span<float const> factors,
                       RowAt&& row_at, matrix_view<float> Y) {
  auto const count = static_cast<index_t>(tokens.size());
  parallel_for(run_on, ceil_div(count, moe_rows_a_piece), [&](index_t piece) {
    index_t const last = std::min(count, (piece + 1) * moe_rows_a_piece), n = Y.extent(1);
    for (index_t i = piece * moe_rows_a_piece; i < last; ++i) {
      float* const y = Y.data + tokens[static_cast<std::size_t>(i)] * Y.stride(0);
      float const* const from = row_at(i);
      float const factor = factors.empty() ? 1.0F : factors[static_cast<std::size_t>(i)];
      for (index_t j = 0; j < n; ++j) y[j] += factor * from[j];
    }
  });
}

// Copies the chosen rows of X, each times its factor where there are factors.
inline void gather_rows(executor* run_on, matrix_view<float const> X, std::span<std::int32_t const> tokens,
                        std::span<float const> factors, matrix_view<float> out) {
  parallel_for(run_on, ceil_div(out.extent(0), moe_rows_a_piece), [&](index_t piece) {
    index_t const last = std::min(out.extent(0), (piece + 1) * moe_rows_a_piece), n = X.extent(1);
    for (index_t i = piece * moe_rows_a_piece; i < last; ++i) {
      float const* const from = X.data + tokens[static_cast<std::size_t>(i)] * X.stride(0);
      float* const to = out.data + i * out.stride(0);
      float const factor = factors.empty() ? 1.0F : factors[static_cast<std::size_t>(i)];
      for (index_t j = 0; j < n; ++j) to[j] = factor * from[j];
    }
  });
}

template <host_backend B, class Observer>
void run_expert(B const& backend, moe_weights const& weights, index_t layer, expert_batch const& batch,
                matrix_view<float const> X, matrix_view<float> Y, forward_workspace& work, Observer& observer) {
  expert_weights const& expert = weights.experts[static_cast<std::size_t>(batch.expert)];
  auto const count = static_cast<index_t>(batch.tokens.size());
  executor* const run_on = backend.run_on();
  if (expert.is_novice()) {
    expects_equal(static_cast<index_t>(expert.novice.size()), Y.extent(1), "moe_layer", "length of a novice");
    if constexpr (requires { observer.expert_output(layer, batch, X); }) {
      auto const O = work.routed.shape(count, Y.extent(1));
      for (index_t i = 0; i < count; ++i) std::copy(expert.novice.begin(), expert.novice.end(), &O(i, 0));
      observer.expert_output(layer, batch, as_const(O));
    }
    add_weighted_rows(run_on, batch.tokens, batch.weights, [&](index_t) { return expert.novice.data(); }, Y);
    return;
  }
  bool const on_input = weights.rule.weight_scales_input;
  std::span<float const> const none;
  auto const gathered = work.gathered.shape(count, X.extent(1));
  gather_rows(run_on, X, batch.tokens, on_input ? batch.weights : none, gathered);
  SLIMTRIM_NOTIFY(observer, expert_input, layer, batch, as_const(gathered));
  auto const O = work.routed.shape(count, Y.extent(1));
  swiglu(backend, gathered, expert.swiglu, O, work, [&](matrix_view<float const> H) {
    static_cast<void>(H);
    SLIMTRIM_NOTIFY(observer, expert_hidden, layer, batch, H);
  });
  SLIMTRIM_NOTIFY(observer, expert_output, layer, batch, as_const(O));
  add_weighted_rows(run_on, batch.tokens, on_input ? none : batch.weights,
                    [&](index_t i) -> float const* { return O.data + i * O.stride(0); }, Y);
}

template <class Observer>
concept observes_inside = requires(Observer& o, routing_result r, expert_batch b, matrix_view<float const> m) {
  requires(requires { o.router_result(0, r); } || requires { o.expert_input(0, b, m); } ||
           requires { o.expert_hidden(0, b, m); } || requires { o.expert_output(0, b, m); } ||
           requires { o.shared_hidden(0, m); });
};

}  // namespace detail

/// Y = sum_i w_i E_i(X) + shared(X), with experts and weights by the layer's routing rule.
///
/// X: [T, hidden], normalised; Y: [T, hidden], overwritten, not aliased with X; contiguous rows. `layer` is only handed
/// to the observer. An expert that no token chose costs nothing. Router logits in float, routing in double, products as
/// the backend's. Deterministic for any executor. Throws `error` on inconsistent weights, `numeric_error` on NaN logits.
template <host_backend B, class Observer = no_observer>
void moe_layer(B const& backend, moe_weights const& weights, index_t layer,
               std::type_identity_t<matrix_view<float const>> X, std::type_identity_t<matrix_view<float>> Y,
               forward_workspace& work, Observer&& observer = {}) {
  if constexpr (fuses_moe_layer<B> && !detail::observes_inside<std::remove_reference_t<Observer>>) {
    backend.moe_layer(weights, X, Y, work);
    return;
  }
  index_t const tokens = X.extent(0), experts = static_cast<index_t>(weights.experts.size());
  expects_equal(weights.router.rows(), experts, "moe_layer", "rows of the router");
  expects_equal(Y.extent(0), tokens, "moe_layer", "rows of the result");
  index_t const slots = weights.rule.top_k;
  auto const logits = work.logits.shape(tokens, experts), probabilities = work.probabilities.shape(tokens, experts);
  auto const indices = work.indices.shape(tokens, slots);
  auto const factors = work.weights.shape(tokens, slots);
  product(backend, X, weights.router.view, logits);
  vector_view<float const> bias;
  if (!weights.selection_bias.empty()) bias = vector_view<float const>(weights.selection_bias.data(), experts);
  route(backend, as_const(logits), weights.rule, bias, indices, factors, probabilities);
  SLIMTRIM_NOTIFY(observer, router_result, layer,
                  routing_result{as_const(logits), as_const(probabilities), as_const(indices), as_const(factors)});

  if (weights.shared) {
    swiglu(backend, X, *weights.shared, Y, work, [&](matrix_view<float const> H) {
      static_cast<void>(H);
      SLIMTRIM_NOTIFY(observer, shared_hidden, layer, H);
    });
  } else {
    for (index_t t = 0; t < tokens; ++t) std::fill_n(Y.data + t * Y.stride(0), Y.extent(1), 0.0F);
  }
  group_by_expert(as_const(indices), experts, work.groups);
  for (index_t e = 0; e < experts; ++e) {
    auto const chosen = work.groups.tokens_of(e), slots_of = work.groups.slots_of(e);
    if (chosen.empty()) continue;
    work.batch_weights.resize(chosen.size());
    for (std::size_t i = 0; i < chosen.size(); ++i) work.batch_weights[i] = factors(chosen[i], slots_of[i]);
    detail::run_expert(backend, weights, layer, expert_batch{e, chosen, work.batch_weights}, X, Y, work, observer);
  }
}

}  // namespace v0
}  // namespace slimtrim
