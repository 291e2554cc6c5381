#include <slimtrim/importance/reap.hpp>
#include <importance/hand_layer.hpp>

#include <doctest/doctest.h>

namespace importance_reap_test {

using namespace slimtrim;

TEST_CASE("reap by hand, for each kind of gate weight") {
  auto const layer = hand::layer();
  CHECK(hand::scores(reap_importance{}(layer), 7.5, (1. + 20.) / 2, 0));
  CHECK(hand::scores(reap_importance{gate_weight::renormalised}(layer), 3.75, 5.25, 0));
  // Raw scores turn the ranking round.
  CHECK(hand::scores(reap_importance{gate_weight::raw}(layer), 3, (.4 + 5) / 2, 0));
}

TEST_CASE("statistics without tokens give zeros, not NaN") {
  CHECK(hand::scores(reap_importance{}(layer_statistics({.experts = 3})), 0, 0, 0));
}

}  // namespace importance_reap_test
