#include <slimtrim/trim/budget.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace trim_budget_test {

using namespace slimtrim;

namespace {
using list = std::vector<index_t>;
std::vector<list> kept(std::vector<expert_scores> const& layers, expert_budget const& budget) {
  std::vector<list> result;
  for (auto const& layer : choose_experts(layers, budget)) result.push_back(layer.kept);
  return result;
}
}  // namespace

TEST_CASE("layer-wise keeps the highest of each layer; ties remove the lower index first") {
  CHECK(kept({{0, {3, 1, 2, 4}, {}, {}}, {5, {1, 1, 1, 1}, {}, {}}}, {.keep = 2}) == std::vector<list>{{0, 3}, {2, 3}});
  CHECK(choose_experts({{5, {1, 2}, {}, {}}}, {.keep = 1})[0].layer == 5);
  CHECK(kept({{0, {3, 1}, {}, {}}}, {.keep = 2}) == std::vector<list>{{0, 1}});
  CHECK(kept({}, {.keep = 2}).empty());
}

TEST_CASE("global pools the layers but never goes below the floor") {
  std::vector<expert_scores> const layers{{0, {9, 8, 7, 6}, {}, {}}, {1, {1, 2, 3, 4}, {}, {}}};
  CHECK(kept(layers, {.keep = 2, .global = true}) == std::vector<list>{{0, 1, 2}, {3}});
  CHECK(kept(layers, {.keep = 2, .global = true, .floor = 2}) == std::vector<list>{{0, 1}, {2, 3}});
  CHECK(kept(layers, {.keep = 3, .global = true, .floor = 2}) == std::vector<list>{{0, 1, 2, 3}, {2, 3}});
}

TEST_CASE("indices are the original ones when earlier steps removed some") {
  CHECK(kept({{0, {3, 1, 2}, {1, 4, 6}, {}}}, {.keep = 2}) == std::vector<list>{{1, 6}});
}

TEST_CASE("protected experts stay, and a budget that they make impossible is refused") {
  CHECK(kept({{0, {1, 2, 3, 4}, {}, {0, 1}}}, {.keep = 2}) == std::vector<list>{{0, 1}});
  CHECK_THROWS_WITH_AS(
      kept({{0, {1, 2, 3, 4}, {}, {0, 1, 3}}}, {.keep = 2}),
      "budget: keep: expected at least 3 experts in all (floor, groups and experts that must stay), found 2", error);
}

TEST_CASE("groups lose one expert each at a time") {
  // Groups {0,1} {2,3}; without groups 0 and 1 would go.
  expert_scores const layer{0, {1, 2, 8, 9}, {}, {}};
  CHECK(kept({layer}, {.keep = 2, .groups = 2, .experts = 4}) == std::vector<list>{{1, 3}});
  // Steps of layer 0: 1 + 8, 2 + 9; of layer 1: 3 + 3, 4 + 4. Globally the two of layer 1 are lower, the floor saves
  // it.
  expert_scores const other{1, {3, 4, 3, 4}, {}, {}};
  CHECK(kept({layer, other}, {.keep = 2, .global = true, .floor = 2, .groups = 2, .experts = 4}) ==
        std::vector<list>{{1, 3}, {1, 3}});
  CHECK(kept({{0, {1, 2, 8, 9}, {0, 1, 4, 5}, {}}}, {.keep = 2, .groups = 2, .experts = 8}) ==
        std::vector<list>{{1, 5}});
}

TEST_CASE("impossible requests name the field") {
  expert_scores const layer{3, {1, 2, 3, 4}, {}, {}};
  CHECK_THROWS_WITH_AS(kept({layer}, {.keep = 1, .floor = 2}),
                       "budget: keep: expected at least 2 experts a layer (the router takes that many), found 1",
                       error);
  CHECK_THROWS_WITH_AS(kept({layer}, {.keep = 0}),
                       "budget: keep: expected at least 1 experts a layer (the router takes that many), found 0",
                       error);
  CHECK_THROWS_WITH_AS(kept({layer}, {.keep = 5}), "budget: layer 3: keep: expected at most 4, found 5", error);
  CHECK_THROWS_AS(kept({layer}, {.keep = 3, .groups = 2, .experts = 4}), error);
  CHECK_THROWS_AS(kept({layer}, {.keep = 2, .groups = 2}), error);
  CHECK_THROWS_AS(kept({{3, {1, std::nan("")}, {}, {}}}, {.keep = 1}), error);
  CHECK_THROWS_AS(kept({{3, {1, 2}, {0}, {}}}, {.keep = 1}), error);
}

}  // namespace trim_budget_test
