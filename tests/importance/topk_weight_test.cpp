#include <slimtrim/importance/topk_weight.hpp>
#include <importance/hand_layer.hpp>

#include <doctest/doctest.h>

namespace importance_topk_weight_test {

using namespace slimtrim;

TEST_CASE("topk_weight by hand: the model's own weights") {
  static_assert(topk_weight_importance::needs == need::statistics);
  CHECK(hand::scores(topk_weight_importance{}(hand::layer()), 1.5 / 2, (.5 + 2) / 2, 0));
}

}  // namespace importance_topk_weight_test
