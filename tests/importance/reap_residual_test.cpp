#include <slimtrim/importance/reap_residual.hpp>
#include <importance/hand_layer.hpp>

#include <doctest/doctest.h>

namespace importance_reap_residual_test {

using namespace slimtrim;

TEST_CASE("reap_residual by hand: reap over the mean residual norm, 10") {
  static_assert(reap_residual_importance::needs == need::statistics);
  CHECK(hand::scores(reap_residual_importance{}(hand::layer()), .75, 1.05, 0));
}

}  // namespace importance_reap_residual_test
