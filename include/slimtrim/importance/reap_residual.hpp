// REAP in units of the residual stream that the MoE output joins: the default when layers are pooled.
#pragma once

#include <slimtrim/importance/reap.hpp>

#include <vector>

namespace slimtrim {
inline namespace v0 {

/// S_j = REAP_j / (1/T sum_x |x'|), x': the residual stream after attention; 0 when that mean is 0.
///
/// Derived from arXiv 2510.13999 eq. 9. The residual stream grows with depth, and what an expert adds matters relative
/// to it; the quotient has no unit, so layers are comparable. Inside a layer the ranking is REAP's. Cost O(experts).
struct reap_residual_importance {
  static constexpr need needs = need::statistics;
  gate_weight gates = gate_weight::model;

  [[nodiscard]] std::vector<double> operator()(layer_statistics const& layer) const {
    std::vector<double> scores = reap_importance{gates}(layer);
    double const unit = layer.similarity.residual_norm();
    for (double& score : scores) score = detail::ratio(score, unit);
    return scores;
  }
};
static_assert(statistics_criterion<reap_residual_importance>);

}  // namespace v0
}  // namespace slimtrim
