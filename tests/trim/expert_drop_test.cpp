#include <slimtrim/trim/expert_drop.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

namespace trim_expert_drop_test {

using namespace slimtrim;

TEST_CASE("the decision follows the scores and says whether it is uniform") {
  std::vector<expert_scores> const layers{{0, {9, 8, 7}, {}, {}}, {2, {1, 2, 3}, {}, {}}};
  auto const local = expert_drop(layers, {.keep = 2});
  CHECK(local.uniform());
  CHECK(local.layers[1].layer == 2);
  CHECK(local.layers[1].kept == std::vector<index_t>{1, 2});
  CHECK_FALSE(expert_drop(layers, {.keep = 2, .global = true}).uniform());
  CHECK_NOTHROW(check_expert_drop(local, 3, 2));
}

TEST_CASE("a decision edited into nonsense is refused by layer and field") {
  CHECK_THROWS_WITH_AS(check_expert_drop({{{4, {1, 9}}}}, 8, 2),
                       "expert_drop: layer 4: kept: expected experts below 8, found 9", error);
  CHECK_THROWS_WITH_AS(check_expert_drop({{{4, {2, 2}}}}, 8, 2),
                       "expert_drop: layer 4: kept: expected ascending, distinct experts", error);
  CHECK_THROWS_WITH_AS(check_expert_drop({{{4, {2}}}}, 8, 2),
                       "expert_drop: layer 4: kept: expected at least 2 experts (top_k), found 1", error);
  CHECK_THROWS_AS(check_expert_drop({{{4, {0, 1, 2, 4}}}}, 8, 2, 2), error);
  CHECK_NOTHROW(check_expert_drop({{{4, {0, 1, 4, 7}}}}, 8, 2, 2));
}

}  // namespace trim_expert_drop_test
