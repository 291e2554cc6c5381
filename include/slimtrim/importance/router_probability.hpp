// The paper's criterion: mean router probability.
#pragma once

#include <slimtrim/importance/criterion.hpp>

#include <vector>

namespace slimtrim {
inline namespace v0 {

/// S_j = (1/T) sum_x p_j(x), p: the router's scores over all experts, on all tokens.
///
/// Muzio et al. 2024 (SEER-MoE); arXiv 2406.02500 sec. 4.1 and its code for Mixtral and Qwen. In [0, 1]; a layer's
/// scores add up to 1 for softmax routers, so layers are comparable. Cost O(experts).
struct router_probability_importance {
  static constexpr need needs = need::statistics;
  [[nodiscard]] std::vector<double> operator()(layer_statistics const& layer) const {
    return detail::each_expert(
        layer, [&](index_t j) { return detail::ratio(layer.router.probability(j), layer.router.tokens()); });
  }
};
static_assert(statistics_criterion<router_probability_importance>);

}  // namespace v0
}  // namespace slimtrim
