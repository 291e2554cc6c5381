// MoNE: how much is lost when an expert's output becomes its mean.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/importance/criterion.hpp>

#include <cmath>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// S_j = |sigma_j|_2 * sum over x in X_j of g_j(x), sigma_j: per-channel standard deviation of f_j over X_j.
///
/// arXiv 2507.00390, its fused score. A sum over tokens in units of the residual stream. Needs statistics with
/// `outputs`; throws `error` without them. Cost O(experts * hidden).
struct mone_importance {
  static constexpr need needs = need::statistics;
  [[nodiscard]] std::vector<double> operator()(layer_statistics const& layer) const {
    expects(layer.outputs.has_value(), "mone", "outputs: the statistics were collected without expert outputs");
    return detail::each_expert(layer, [&](index_t j) {
      double variance = 0;
      for (double const channel : layer.outputs->variance(j)) variance += channel;
      return std::sqrt(variance) * layer.router.weight(j);
    });
  }
};
static_assert(statistics_criterion<mone_importance>);

}  // namespace v0
}  // namespace slimtrim
