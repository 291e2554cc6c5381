#include <slimtrim/trim/select_layers.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace trim_select_layers_test {

using namespace slimtrim;

namespace {

using list = std::vector<index_t>;
std::vector<layer_candidate> const five{{0, .1}, {1, .9}, {2, .95}, {3, .9}, {4, .2}};

// Layers 1 and 2 repair each other: dropping either is cheap, both is ruinous; 3 and 4 are independent.
double damage(std::span<index_t const> dropped) {
  auto const has = [&](index_t l) { return std::find(dropped.begin(), dropped.end(), l) != dropped.end(); };
  return (has(0) ? 9. : 0) + (has(1) ? 1.5 : 0) + (has(2) ? 1. : 0) + (has(3) ? 2. : 0) + (has(4) ? 3. : 0) +
         (has(1) && has(2) ? 10. : 0) + (has(1) && has(3) ? -1.2 : 0);
}

}  // namespace

TEST_CASE("one shot: highest similarity, ties to the lower layer") {
  auto const two = select_most_similar(five, {.count = 2});
  CHECK(two.dropped == list{1, 2});
  CHECK(two.steps[0].layer == 2);
  CHECK(two.steps[1].layer == 1);
  CHECK(select_most_similar(five, {.count = 0}).dropped.empty());
}

TEST_CASE("protected ends stay; what cannot be met is refused by field") {
  CHECK(select_most_similar(five, {.count = 2, .layers = 5, .protect_first = 2, .protect_last = 1}).dropped ==
        list{2, 3});
  CHECK_THROWS_WITH_AS(select_most_similar(five, {.count = 3, .layers = 5, .protect_first = 2, .protect_last = 1}),
                       "select_layers: count: expected at most 2 unprotected layers, found 3", error);
  CHECK_THROWS_WITH_AS(select_most_similar(five, {.count = 5}),
                       "select_layers: count: expected less than all 5 layers, found 5", error);
  CHECK_THROWS_AS(select_most_similar(five, {.count = -1}), error);
  CHECK_THROWS_AS(select_most_similar(five, {.count = 1, .protect_last = 1}), error);
  CHECK_THROWS_AS(select_most_similar({{0, .5}, {1, std::nan("")}}, {.count = 1}), error);
  CHECK_THROWS_AS(select_most_similar({{1, .5}, {1, .4}}, {.count = 1}), error);
}

TEST_CASE("greedy measures again after each drop") {
  std::vector<list> asked;
  auto const measure = [&](std::span<index_t const> dropped) {
    asked.emplace_back(dropped.begin(), dropped.end());
    std::vector<layer_candidate> left;
    for (auto c : five) {
      if (std::find(dropped.begin(), dropped.end(), c.layer) != dropped.end()) continue;
      if (!dropped.empty() && c.layer == 1) c.similarity = .3;  // no longer similar without layer 2
      left.push_back(c);
    }
    return left;
  };
  auto const two = select_greedily(measure, {.count = 2});
  CHECK(two.dropped == list{2, 3});
  CHECK(asked == std::vector<list>{{}, {2}});
  CHECK_THROWS_AS(select_greedily(measure, {.count = 5}), error);
  CHECK(select_greedily(measure, {.count = 0}).dropped.empty());
}

TEST_CASE("least damage step by step, never worse than an alternative") {
  auto const two = select_least_damage(five, {.count = 2}, damage);
  CHECK(two.dropped == list{2, 3});  // 1, then 1 + 2
  CHECK(two.damage == 3);
  CHECK(two.evaluations == 5 + 4);
  auto const better = select_least_damage(five, {.count = 2}, damage, {{3, 1}, {2, 1}});
  CHECK(better.dropped == list{1, 3});
  CHECK(better.damage == doctest::Approx(2.3));
  CHECK_THROWS_AS(select_least_damage(five, {.count = 2}, damage, {{1}}), error);
  CHECK_THROWS_AS(select_least_damage(five, {.count = 1}, [](auto) { return std::nan(""); }), numeric_error);
}

TEST_CASE("exhaustive search finds the optimum") {
  auto const two = select_exhaustively(five, {.count = 2}, damage);
  CHECK(two.dropped == list{1, 3});
  CHECK(two.evaluations == 10);
  CHECK(select_exhaustively(five, {.count = 1}, damage).dropped == list{2});
  CHECK(select_exhaustively(five, {.count = 2, .protect_first = 2}, damage).dropped == list{2, 3});
  CHECK_THROWS_WITH_AS(select_exhaustively(five, {.count = 2}, damage, 9),
                       "select_layers: count: expected at most 9 sets of layers to measure, found 2 of 5 layers", error);
}

}  // namespace trim_select_layers_test
