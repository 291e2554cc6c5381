#include <slimtrim/importance/ean.hpp>
#include <importance/hand_layer.hpp>

#include <doctest/doctest.h>

namespace importance_ean_test {

using namespace slimtrim;

TEST_CASE("ean by hand: a sum over routed tokens, per token") {
  static_assert(ean_importance::needs == need::statistics);
  CHECK(hand::scores(ean_importance{}(hand::layer()), 5. / 2, 12. / 2, 0));
}

}  // namespace importance_ean_test
