#include <slimtrim/importance/man.hpp>
#include <importance/hand_layer.hpp>

#include <doctest/doctest.h>

namespace importance_man_test {

using namespace slimtrim;

TEST_CASE("man by hand: a mean over routed tokens") {
  static_assert(man_importance::needs == need::statistics);
  CHECK(hand::scores(man_importance{}(hand::layer()), 5, 6, 0));
}

}  // namespace importance_man_test
