#include <slimtrim/backend/reference.hpp>
#include <slimtrim/trim/block_drop.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace trim_block_drop_test {

using namespace slimtrim;

TEST_CASE("discrete: the most similar blocks") {
  CHECK(block_drop({{0, .2}, {1, .9}, {2, .8}, {3, .95}}, {.count = 2}).dropped == std::vector<index_t>{1, 3});
}

TEST_CASE("consecutive: the run itself is compared, not a run of one more") {
  // The stream turns by these degrees in blocks 0..4. The best pair is 1, 2 (turn 2); the best triples turn 12.
  std::vector<double> const turn{90, 1, 1, 10, 1};
  std::vector<std::vector<float>> streams{{1, 0}};
  double angle = 0;
  for (double const degrees : turn) {
    angle += degrees * std::acos(-1.0) / 180;
    streams.push_back({static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))});
  }
  std::vector<matrix_view<float const>> views;
  for (auto const& s : streams) views.emplace_back(s.data(), 1, 2);
  block_similarity table(5);
  table.add(reference_backend{}, views);
  table.commit_window();
  auto const two = block_drop_consecutive(table, {.count = 2, .layers = 5});
  CHECK(two.dropped == std::vector<index_t>{1, 2});
  CHECK(two.steps[0].similarity == doctest::Approx(std::cos(2 * std::acos(-1.0) / 180)));
  CHECK(block_drop_consecutive(table, {.count = 3, .layers = 5}).dropped == std::vector<index_t>{1, 2, 3});
  CHECK(block_drop_consecutive(table, {.count = 2, .layers = 5, .protect_first = 2}).dropped ==
        std::vector<index_t>{2, 3});
  CHECK(block_drop_consecutive(table, {.count = 2, .layers = 5, .protect_first = 2, .protect_last = 1}).dropped ==
        std::vector<index_t>{2, 3});
  CHECK(block_drop_consecutive(table, {.count = 0, .layers = 5}).dropped.empty());
  CHECK_THROWS_AS(block_drop_consecutive(table, {.count = 5, .layers = 5}), error);
  CHECK_THROWS_AS(block_drop_consecutive(table, {.count = 4, .layers = 5, .protect_first = 2}), error);
  CHECK_THROWS_AS(block_drop_consecutive(table, {.count = 1, .layers = 4}), error);
}

TEST_CASE("ties take the run that starts first") {
  CHECK(block_drop_consecutive([](index_t, index_t) { return .5; }, {.count = 2, .layers = 4}).dropped ==
        std::vector<index_t>{0, 1});
}

}  // namespace trim_block_drop_test
