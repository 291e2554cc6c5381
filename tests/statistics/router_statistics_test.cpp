#include <slimtrim/statistics/router_statistics.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <vector>

namespace statistics_router_statistics_test {

using namespace slimtrim;

TEST_CASE("two tokens by hand") {
  // Scores .5 .3 .2 0 and .1 .1 .8 0; weights as a model with renormalisation and scale 2 would use them.
  std::vector<float> const probabilities{.5F, .3F, .2F, 0, .1F, .1F, .8F, 0};
  std::vector<std::int32_t> const indices{0, 1, 2, -1};
  std::vector<float> const weights{1.25F, .75F, 2.F, 0};
  routing_view const routing{matrix_view<float const>(probabilities.data(), 2, 4),
                             matrix_view<std::int32_t const>(indices.data(), 2, 2),
                             matrix_view<float const>(weights.data(), 2, 2)};
  router_statistics s(4);
  s.add(routing);
  s.commit_window();
  CHECK(s.tokens() == 2);
  CHECK(s.count(0) == 1);
  CHECK(s.count(3) == 0);
  CHECK(s.probability(0) == doctest::Approx(.6));
  CHECK(s.probability(2) == doctest::Approx(1.));
  CHECK(s.weight(1) == .75);
  CHECK(s.raw_weight(1) == doctest::Approx(.3));
  CHECK(s.renormalised_weight(0) == doctest::Approx(.625));
  CHECK(s.renormalised_weight(2) == 1);
  CHECK(s.coactivation(0, 1) == 1);
  CHECK(s.coactivation(1, 0) == 1);
  CHECK(s.coactivation(0, 0) == 1);
  CHECK(s.coactivation(0, 2) == 0);
  CHECK(s.probability_product(0, 2) == doctest::Approx(.5 * .2 + .1 * .8));
  CHECK(s.probability_product(2, 0) == s.probability_product(0, 2));
  CHECK(s.probability_product(1, 1) == doctest::Approx(.3 * .3 + .1 * .1));
  CHECK(s.coverage() == 0);
  CHECK(s.unreached() == std::vector<index_t>{3});
}

TEST_CASE("extents and indices are checked") {
  std::vector<float> const values(8, 0.25F);
  std::vector<std::int32_t> const indices{0, 1, 2, 9};
  router_statistics s(4), five(5);
  routing_view const routing{matrix_view<float const>(values.data(), 2, 4),
                             matrix_view<std::int32_t const>(indices.data(), 2, 2),
                             matrix_view<float const>(values.data(), 2, 2)};
  CHECK_THROWS_WITH_AS(s.add(routing), "routing_view: indices: expected experts below the number of experts", error);
  CHECK_THROWS_WITH_AS(five.add(routing), "routing_view: columns of probabilities: expected 5, found 4", error);
}

}  // namespace statistics_router_statistics_test
