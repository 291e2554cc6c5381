#include <slimtrim/importance/aimer.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace importance_aimer_test {

using namespace slimtrim;

namespace {
double score(std::vector<std::vector<float>> const& parts) {
  aimer_importance a;
  for (auto const& p : parts) a.add(matrix_view<float const>(p.data(), 1, p.size()));
  return a.score();
}
}  // namespace

TEST_CASE("aimer by hand: mean 2, rms sqrt(5), over all three projections together") {
  static_assert(aimer_importance::needs == need::weights);
  CHECK(score({{1, -1}, {2}, {-4, 2, 2}}) == doctest::Approx(-2 / std::sqrt(5.0)));
}

TEST_CASE("scale does not matter; even weights are most removable, sparse ones least; zeros score -1") {
  CHECK(score({{1, -2, 3}}) == doctest::Approx(score({{100, -200, 300}})));
  CHECK(score({{1, -1, 1, 1}}) == -1);
  CHECK(score({{0, 0, 0, 5}}) == doctest::Approx(-.5));
  CHECK(score({{0, 0}}) == -1);
  CHECK(score({}) == -1);
  CHECK_THROWS_AS(score({{1, std::numeric_limits<float>::quiet_NaN()}}), numeric_error);
}

}  // namespace importance_aimer_test
