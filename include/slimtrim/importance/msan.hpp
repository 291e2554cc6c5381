// Mean squared activation norm (MSAN).
#pragma once

#include <slimtrim/importance/criterion.hpp>

#include <vector>

namespace slimtrim {
inline namespace v0 {

/// S_j = (1/N_j) sum over x in X_j of |f_j(x)|^2; 0 when no token reached j.
///
/// arXiv 2606.15716. In squared units of the residual stream; see `ean_importance` on pooling. Cost O(experts).
struct msan_importance {
  static constexpr need needs = need::statistics;
  [[nodiscard]] std::vector<double> operator()(layer_statistics const& layer) const {
    return detail::each_expert(layer,
                               [&](index_t j) { return detail::ratio(layer.norms.square(j), layer.router.count(j)); });
  }
};
static_assert(statistics_criterion<msan_importance>);

}  // namespace v0
}  // namespace slimtrim
