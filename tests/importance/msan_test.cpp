#include <slimtrim/importance/msan.hpp>
#include <importance/hand_layer.hpp>

#include <doctest/doctest.h>

namespace importance_msan_test {

using namespace slimtrim;

TEST_CASE("msan by hand: a mean of squares") {
  static_assert(msan_importance::needs == need::statistics);
  CHECK(hand::scores(msan_importance{}(hand::layer()), 25, 52, 0));
}

}  // namespace importance_msan_test
