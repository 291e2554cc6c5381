#include <slimtrim/importance/easy_ep.hpp>
#include <importance/hand_layer.hpp>

#include <doctest/doctest.h>

namespace importance_easy_ep_test {

using namespace slimtrim;

TEST_CASE("easy_ep by hand: only the token that the layer turns counts") {
  static_assert(easy_ep_importance::needs == need::statistics);
  CHECK(hand::scores(easy_ep_importance{}(hand::layer()), .2 * 7.5, .2 * 1, 0));
}

}  // namespace importance_easy_ep_test
