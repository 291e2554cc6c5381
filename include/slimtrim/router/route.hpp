// From router logits to experts and weights, exactly as the model multiplies: the one place where routing happens, for
// the forward pass and for every saliency that uses a gate weight.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/router/routing_rule.hpp>
#include <slimtrim/tensor/subview.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The slot of a token that has fewer eligible experts than `top_k` slots.
inline constexpr std::int32_t no_expert = -1;

namespace detail {

[[nodiscard]] inline double independent_score(score_function score, double logit) {
  if (score == score_function::sqrt_softplus)
    return std::sqrt(logit > 0 ? logit + std::log1p(std::exp(-logit)) : std::log1p(std::exp(logit)));
  if (logit >= 0) return 1 / (1 + std::exp(-logit));
  double const e = std::exp(logit);
  return e / (1 + e);
}

// One token after another; owns its scratch, so one object serves one thread.
class token_router {
 public:
  token_router(routing_rule const& rule, index_t experts)
      : rule_(rule),
        experts_(static_cast<std::size_t>(experts)),
        logits_(experts_),
        scores_(experts_),
        choices_(experts_),
        group_scores_(static_cast<std::size_t>(rule.groups)) {}

  void operator()(index_t token, vector_view<float const> logits, vector_view<float const> bias,
                  vector_view<std::uint8_t const> kept, vector_view<std::int32_t> indices, vector_view<float> weights,
                  float* probabilities, index_t probability_stride) {
    read(token, logits, kept);
    score();
    if (probabilities != nullptr)
      for (std::size_t j = 0; j < experts_; ++j)
        probabilities[static_cast<index_t>(j) * probability_stride] = static_cast<float>(scores_[j]);
    for (std::size_t j = 0; j < experts_; ++j) {
      double const base = rule_.select_before_score ? logits_[j] : scores_[j];
      double const shift = bias.data != nullptr ? static_cast<double>(bias(static_cast<index_t>(j))) : 0.0;
      choices_[j] = logits_[j] == removed ? removed : base + shift;
    }
    if (rule_.groups_kept < rule_.groups) limit_groups();
    select(indices);
    weigh(indices, weights);
  }

 private:
  static constexpr double removed = -std::numeric_limits<double>::infinity();

  void read(index_t token, vector_view<float const> logits, vector_view<std::uint8_t const> kept) {
    for (std::size_t j = 0; j < experts_; ++j) {
      auto const at = static_cast<index_t>(j);
      double const value = static_cast<double>(logits(at));
      if (std::isnan(value) || value == std::numeric_limits<double>::infinity())
        throw numeric_error("route: logits[" + std::to_string(token) + ", " + std::to_string(at) +
                            "]: expected a finite number");
      logits_[j] = kept.data != nullptr && kept(at) == 0 ? removed : value;
    }
  }

  void score() {
    if (rule_.score != score_function::softmax) {
      for (std::size_t j = 0; j < experts_; ++j)
        scores_[j] = logits_[j] == removed ? 0.0 : independent_score(rule_.score, logits_[j]);
      return;
    }
    double const largest = *std::max_element(logits_.begin(), logits_.end());
    double sum = 0;
    for (std::size_t j = 0; j < experts_; ++j) {
      scores_[j] = logits_[j] == removed ? 0.0 : std::exp(logits_[j] - largest);
      sum += scores_[j];
    }
    if (sum > 0)
      for (double& value : scores_) value /= sum;
  }

  void limit_groups() {
    std::size_t const size = experts_ / group_scores_.size();
    for (std::size_t g = 0; g < group_scores_.size(); ++g) {
      double best = removed, second = removed;
      for (std::size_t j = g * size; j < (g + 1) * size; ++j) {
        if (choices_[j] > best) {
          second = best;
          best = choices_[j];
        } else if (choices_[j] > second) {
          second = choices_[j];
        }
      }
      // A lone eligible expert is its group's whole score.
      group_scores_[g] = rule_.group_by == group_score::top_two_sum && second != removed ? best + second : best;
    }
    // A group stays when fewer than `groups_kept` groups are ahead of it (ties: the lower index is ahead).
    for (std::size_t g = 0; g < group_scores_.size(); ++g) {
      index_t ahead = 0;
      for (std::size_t other = 0; other < group_scores_.size(); ++other)
        if (group_scores_[other] > group_scores_[g] || (group_scores_[other] == group_scores_[g] && other < g)) ++ahead;
      if (ahead >= rule_.groups_kept)
        for (std::size_t j = g * size; j < (g + 1) * size; ++j) choices_[j] = removed;
    }
  }

  void select(vector_view<std::int32_t> indices) {
    for (index_t slot = 0; slot < indices.extent(0); ++slot) {
      std::size_t best = experts_;
      for (std::size_t j = 0; j < experts_; ++j)
        if (choices_[j] != removed && (best == experts_ || choices_[j] > choices_[best])) best = j;
      indices(slot) = best == experts_ ? no_expert : static_cast<std::int32_t>(best);
      if (best != experts_) choices_[best] = removed;
    }
  }

  void weigh(vector_view<std::int32_t const> indices, vector_view<float> weights) {
    double largest = removed;
    bool const selected_softmax =
        rule_.score == score_function::softmax && (rule_.select_before_score || rule_.renormalise);
    if (selected_softmax)
      for (index_t slot = 0; slot < indices.extent(0); ++slot)
        if (indices(slot) >= 0) largest = std::max(largest, logits_[static_cast<std::size_t>(indices(slot))]);
    // A ratio of softmax scores does not need the full denominator; formed from the selected logits alone it cannot
    // be 0 / 0 when a selection bias picks experts of vanishing probability.
    bool const ratio_only = selected_softmax && (rule_.select_before_score ||
                                                 (rule_.weight_sum_epsilon == 0 && rule_.weight_sum_floor == 0));
    auto const value = [&](index_t slot) {
      auto const j = static_cast<std::size_t>(indices(slot));
      return ratio_only ? std::exp(logits_[j] - largest) : scores_[j];
    };
    double sum = 0;
    for (index_t slot = 0; slot < indices.extent(0); ++slot)
      if (indices(slot) >= 0) sum += value(slot);
    double divisor = 1;
    if (rule_.renormalise || ratio_only) {
      divisor = ratio_only ? sum : std::max(sum + rule_.weight_sum_epsilon, rule_.weight_sum_floor);
      if (divisor == 0) divisor = 1;  // every selected score is zero, and so are the weights
    }
    for (index_t slot = 0; slot < indices.extent(0); ++slot)
      weights(slot) =
          indices(slot) < 0 ? 0.0F : static_cast<float>(value(slot) / divisor * static_cast<double>(rule_.scale));
  }

  routing_rule rule_;
  std::size_t experts_;
  std::vector<double> logits_, scores_, choices_, group_scores_;
};

}  // namespace detail

/// Which experts each token takes and by what each is multiplied:
///
///     s = score(l),  T = top_k of (s + bias) within the best groups,  w_j = scale * s_j / (renormalise ? sum_T s : 1)
///
/// logits: [tokens, experts]; bias: [experts] or no data (required exactly when `rule.selection_bias`);
/// indices, weights: [tokens, top_k]; probabilities: [tokens, experts] or no data, receives s (with
/// `select_before_score`, the score over all experts); kept: [experts] or no data, experts with 0 are treated as
/// removed (their logit is -infinity before the score). Slots are in descending order of the selection score, ties to
/// the lower index. With fewer eligible experts than slots, all are used and the other slots are `no_expert` with
/// weight 0. A logit of -infinity removes an expert for its token. Arithmetic in double, one rounding to float. Cost
/// O(tokens * experts * top_k). Deterministic for any executor. Throws `error` on wrong shapes or rule, `numeric_error`
/// on NaN or +infinity. A member `route` of the backend with the same arguments takes over.
template <tensor_backend B>
void route(B const& backend, matrix_view<float const, B::memory> logits, routing_rule const& rule,
           vector_view<float const, B::memory> bias, matrix_view<std::int32_t, B::memory> indices,
           matrix_view<float, B::memory> weights, matrix_view<float, B::memory> probabilities = {},
           vector_view<std::uint8_t const, B::memory> kept = {}) {
  index_t const tokens = logits.extent(0), experts = logits.extent(1);
  check_routing_rule(rule, experts);
  expects((bias.data != nullptr) == rule.selection_bias, "route",
          "bias: expected exactly when the rule has selection_bias");
  if (bias.data != nullptr) expects_equal(bias.extent(0), experts, "route", "length of bias");
  if (kept.data != nullptr) expects_equal(kept.extent(0), experts, "route", "length of kept");
  expects_equal(indices.extent(0), tokens, "route", "rows of indices");
  expects_equal(indices.extent(1), rule.top_k, "route", "columns of indices");
  expects_equal(weights.extent(0), tokens, "route", "rows of weights");
  expects_equal(weights.extent(1), rule.top_k, "route", "columns of weights");
  if (probabilities.data != nullptr) {
    expects_equal(probabilities.extent(0), tokens, "route", "rows of probabilities");
    expects_equal(probabilities.extent(1), experts, "route", "columns of probabilities");
  }
  if constexpr (requires { backend.route(logits, rule, bias, indices, weights, probabilities, kept); }) {
    backend.route(logits, rule, bias, indices, weights, probabilities, kept);
  } else {
    static_assert(B::memory == space::host, "route: this device backend lacks the member route");
    constexpr index_t tokens_a_piece = 64;
    parallel_for(backend.run_on(), ceil_div(tokens, tokens_a_piece), [&](index_t piece) {
      detail::token_router route_token(rule, experts);
      index_t const last = std::min(tokens, (piece + 1) * tokens_a_piece);
      for (index_t t = piece * tokens_a_piece; t < last; ++t) {
        float* const full = probabilities.data != nullptr ? &probabilities(t, 0) : nullptr;
        route_token(t, row(logits, t), bias, kept, row(indices, t), row(weights, t), full, probabilities.stride(1));
      }
    });
  }
}

}  // namespace v0
}  // namespace slimtrim
