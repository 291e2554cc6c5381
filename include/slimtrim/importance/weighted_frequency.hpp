// Selections, each counted by its share of the token's routed mass.
#pragma once

#include <slimtrim/importance/criterion.hpp>

#include <vector>

namespace slimtrim {
inline namespace v0 {

/// S_j = (1/T) sum over x in X_j of q_j(x), q = p_j / sum of p over the selected experts.
///
/// arXiv 2510.13999 (REAP), its weighted frequency, divided by T. Unlike `topk_weight_importance` it renormalises
/// whether the model does or not; the two agree on Mixtral. A layer's scores add up to 1: comparable. Cost O(experts).
struct weighted_frequency_importance {
  static constexpr need needs = need::statistics;
  [[nodiscard]] std::vector<double> operator()(layer_statistics const& layer) const {
    return detail::each_expert(
        layer, [&](index_t j) { return detail::ratio(layer.router.renormalised_weight(j), layer.router.tokens()); });
  }
};
static_assert(statistics_criterion<weighted_frequency_importance>);

}  // namespace v0
}  // namespace slimtrim
