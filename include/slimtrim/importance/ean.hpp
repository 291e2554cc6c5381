// Expert activation norm (EAN).
#pragma once

#include <slimtrim/importance/criterion.hpp>

#include <vector>

namespace slimtrim {
inline namespace v0 {

/// S_j = (1/T) sum over x in X_j of |f_j(x)|, f: the expert's output before the gate.
///
/// Jaiswal et al. 2025, "Finding Fantastic Experts in MoEs", arXiv 2504.05586; divided by T so that it does not grow
/// with the calibration set. In units of the residual stream, which grows with depth: pooled layers favour the late
/// ones. Cost O(experts).
struct ean_importance {
  static constexpr need needs = need::statistics;
  [[nodiscard]] std::vector<double> operator()(layer_statistics const& layer) const {
    return detail::each_expert(layer,
                               [&](index_t j) { return detail::ratio(layer.norms.norm(j), layer.router.tokens()); });
  }
};
static_assert(statistics_criterion<ean_importance>);

}  // namespace v0
}  // namespace slimtrim
