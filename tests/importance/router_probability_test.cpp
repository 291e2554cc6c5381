#include <slimtrim/importance/router_probability.hpp>
#include <importance/hand_layer.hpp>

#include <doctest/doctest.h>

namespace importance_router_probability_test {

using namespace slimtrim;

TEST_CASE("router_probability by hand: all tokens, all experts") {
  static_assert(router_probability_importance::needs == need::statistics);
  CHECK(hand::scores(router_probability_importance{}(hand::layer()), (.6 + .25) / 2, (.2 + .5) / 2, (.2 + .25) / 2));
}

}  // namespace importance_router_probability_test
