#include <slimtrim/importance/frequency.hpp>
#include <importance/hand_layer.hpp>

#include <doctest/doctest.h>

namespace importance_frequency_test {

using namespace slimtrim;

TEST_CASE("frequency by hand: share of tokens") {
  static_assert(frequency_importance::needs == need::statistics);
  CHECK(hand::scores(frequency_importance{}(hand::layer()), .5, 1, 0));
}

}  // namespace importance_frequency_test
