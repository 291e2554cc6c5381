// How often an expert is selected.
#pragma once

#include <slimtrim/importance/criterion.hpp>

#include <vector>

namespace slimtrim {
inline namespace v0 {

/// S_j = N_j / T, the share of tokens that route to expert j.
///
/// Used as a baseline by arXiv 2510.13999 (REAP) and others. In [0, 1]; a layer's scores add up to top_k, so layers are
/// comparable. Cost O(experts).
struct frequency_importance {
  static constexpr need needs = need::statistics;
  [[nodiscard]] std::vector<double> operator()(layer_statistics const& layer) const {
    return detail::each_expert(layer,
                               [&](index_t j) { return detail::ratio(layer.router.count(j), layer.router.tokens()); });
  }
};
static_assert(statistics_criterion<frequency_importance>);

}  // namespace v0
}  // namespace slimtrim
