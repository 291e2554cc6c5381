// EASY-EP: output norm times how much the token is changed by the layer.
#pragma once

#include <slimtrim/importance/criterion.hpp>

#include <vector>

namespace slimtrim {
inline namespace v0 {

/// S_j = sum over x in X_j of s(x) g_j(x) |f_j(x)|,  s(x) = 1 - cos(x', x' + MoE(x')).
///
/// arXiv 2504.06792. Deviation: s is taken over the whole MoE output, shared experts included. A sum, not a mean, as in
/// the paper: it grows with the calibration set, equally for all. Cost O(experts).
struct easy_ep_importance {
  static constexpr need needs = need::statistics;
  [[nodiscard]] std::vector<double> operator()(layer_statistics const& layer) const {
    return detail::each_expert(layer, [&](index_t j) { return layer.norms.change_weighted(j); });
  }
};
static_assert(statistics_criterion<easy_ep_importance>);

}  // namespace v0
}  // namespace slimtrim
