// How a router turns logits into experts and weights, as data: one struct covers every family.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>

namespace slimtrim {
inline namespace v0 {

/// The map from logits to scores.
enum class score_function {
  softmax,        ///< exp(l_j) / sum_i exp(l_i)
  sigmoid,        ///< 1 / (1 + exp(-l_j))
  sqrt_softplus,  ///< sqrt(log(1 + exp(l_j)))
};

/// How a group of experts is judged when routing is limited to some groups.
enum class group_score {
  maximum,      ///< its best selection score (DeepSeek-V2)
  top_two_sum,  ///< the sum of its two best selection scores (DeepSeek-V3)
};

/// A routing rule: scores from logits, a selection of `top_k` experts, weights of the selected.
///
/// | family                                   | rule                                                                  |
/// |------------------------------------------|-----------------------------------------------------------------------|
/// | Mixtral, Qwen3-MoE                       | defaults: softmax over all, top-k, renormalised                       |
/// | Qwen2-MoE, OLMoE, DeepSeek-MoE           | `.renormalise = false`                                                |
/// | DeepSeek-V2                              | and `.groups, .groups_kept, .scale`                                   |
/// | DeepSeek-V3, Kimi-K2, GLM-4.5            | sigmoid, selection_bias, groups by top_two_sum, epsilon 1e-20, scale  |
/// | ERNIE-4.5                                | softmax, selection_bias, `.weight_sum_floor`                          |
/// | DeepSeek-V4                              | sqrt_softplus, selection_bias, scale                                  |
/// | gpt-oss, Granite                         | `.select_before_score = true`: top-k logits, softmax over the selected|
/// | Llama-4                                  | sigmoid, top_k 1, no renormalisation, `.weight_scales_input = true`   |
struct routing_rule {
  score_function score = score_function::softmax;
  index_t top_k = 2;
  /// Select on logits, then apply the score function to the selected logits only.
  bool select_before_score = false;
  /// Divide the selected scores by max(their sum + epsilon, floor).
  bool renormalise = true;
  double weight_sum_epsilon = 0;
  double weight_sum_floor = 0;
  /// Multiplies every weight, after renormalisation (`routed_scaling_factor`).
  float scale = 1;
  /// A bias per expert takes part in the selection, never in the weights.
  bool selection_bias = false;
  /// Experts are cut into `groups` equal runs of consecutive indices; only the best `groups_kept` may be selected from.
  index_t groups = 1;
  index_t groups_kept = 1;
  group_score group_by = group_score::maximum;
  /// The weight multiplies the expert's input instead of its output.
  bool weight_scales_input = false;

  friend bool operator==(routing_rule const&, routing_rule const&) = default;
};

/// Throws `error` that names the field when `rule` cannot route among `experts` experts.
inline void check_routing_rule(routing_rule const& rule, index_t experts) {
  expects(experts > 0, "routing_rule", "experts: expected at least 1");
  expects(rule.top_k > 0, "routing_rule", "top_k: expected at least 1");
  expects(rule.groups > 0, "routing_rule", "groups: expected at least 1");
  expects(rule.groups_kept > 0 && rule.groups_kept <= rule.groups, "routing_rule", "groups_kept: expected 1 .. groups");
  expects(experts % rule.groups == 0, "routing_rule", "groups: expected a divisor of the number of experts");
  expects(rule.weight_sum_epsilon >= 0 && rule.weight_sum_floor >= 0, "routing_rule",
          "weight_sum_epsilon, weight_sum_floor: expected values >= 0");
}

}  // namespace v0
}  // namespace slimtrim
