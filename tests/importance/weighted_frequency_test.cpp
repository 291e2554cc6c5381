#include <slimtrim/importance/weighted_frequency.hpp>
#include <importance/hand_layer.hpp>

#include <doctest/doctest.h>

namespace importance_weighted_frequency_test {

using namespace slimtrim;

TEST_CASE("weighted_frequency by hand: renormalised whatever the model does") {
  static_assert(weighted_frequency_importance::needs == need::statistics);
  CHECK(hand::scores(weighted_frequency_importance{}(hand::layer()), .75 / 2, (.25 + 1) / 2, 0));
}

}  // namespace importance_weighted_frequency_test
