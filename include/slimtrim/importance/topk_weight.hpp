// Mean gate weight, 0 where the expert is not selected.
#pragma once

#include <slimtrim/importance/criterion.hpp>

#include <vector>

namespace slimtrim {
inline namespace v0 {

/// S_j = (1/T) sum over x in X_j of g_j(x), g: the weight that the model multiplies with, X_j: the tokens routed to j.
///
/// arXiv 2406.02500, the official code's score for DeepSeek. A layer's scores add up to the model's mean weight sum
/// (1 with renormalisation), so layers of one model are nearly comparable. Cost O(experts).
struct topk_weight_importance {
  static constexpr need needs = need::statistics;
  [[nodiscard]] std::vector<double> operator()(layer_statistics const& layer) const {
    return detail::each_expert(layer,
                               [&](index_t j) { return detail::ratio(layer.router.weight(j), layer.router.tokens()); });
  }
};
static_assert(statistics_criterion<topk_weight_importance>);

}  // namespace v0
}  // namespace slimtrim
