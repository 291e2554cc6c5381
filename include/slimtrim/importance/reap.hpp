// REAP: router-weighted expert activation pruning, the default criterion.
#pragma once

#include <slimtrim/importance/criterion.hpp>

#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Which weight stands for the router's opinion.
enum class gate_weight {
  model,         ///< what the model multiplies with, scale included
  renormalised,  ///< the score divided by the sum over the token's selected experts
  raw,           ///< the score among all experts
};

/// S_j = (1/N_j) sum over x in X_j of g_j(x) |f_j(x)|; 0 when no token reached j.
///
/// arXiv 2510.13999 eq. 9. X_j: tokens whose top-k holds j under the model's own routing rule; f: output before the
/// gate. In units of the residual stream: for pooling layers see `reap_residual_importance`. Cost O(experts).
struct reap_importance {
  static constexpr need needs = need::statistics;
  gate_weight gates = gate_weight::model;

  [[nodiscard]] std::vector<double> operator()(layer_statistics const& layer) const {
    return detail::each_expert(layer, [&](index_t j) {
      double const sum =
          gates == gate_weight::model
              ? layer.norms.weighted(j)
              : (gates == gate_weight::raw ? layer.norms.raw_weighted(j) : layer.norms.renormalised_weighted(j));
      return detail::ratio(sum, layer.router.count(j));
    });
  }
};
static_assert(statistics_criterion<reap_importance>);

}  // namespace v0
}  // namespace slimtrim
