#include <slimtrim/similarity/divergence.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace similarity_divergence_test {

using namespace slimtrim;

TEST_CASE("KL by hand, whatever the shift of the logits") {
  std::vector<float> const p{static_cast<float>(std::log(.5)), static_cast<float>(std::log(.5))};
  std::vector<float> const q{static_cast<float>(std::log(.25)) + 7, static_cast<float>(std::log(.75)) + 7};
  CHECK(kl_divergence(p, q) == doctest::Approx(.5 * std::log(2.) + .5 * std::log(.5 / .75)).epsilon(1e-6));
  CHECK(kl_divergence(q, p) == doctest::Approx(.25 * std::log(.5) + .75 * std::log(1.5)).epsilon(1e-6));
  CHECK(kl_divergence(p, p) == 0);
}

TEST_CASE("logits far apart give a large, finite divergence") {
  std::vector<float> const p{1000, 0}, q{0, 1000}, extreme{3e38F, -3e38F};
  CHECK(kl_divergence(p, q) == doctest::Approx(1000));
  CHECK(std::isfinite(kl_divergence(extreme, q)));
}

TEST_CASE("top-1 agreement, ties to the lower index") {
  std::vector<float> const p{1, 3, 3}, q{0, 5, 2}, r{0, 2, 5}, nan{std::numeric_limits<float>::quiet_NaN(), 1, 0};
  CHECK(same_top_1(p, q));
  CHECK_FALSE(same_top_1(p, r));
  CHECK(same_top_1(nan, q));
}

TEST_CASE("bad input") {
  std::vector<float> const p{1, 2}, longer{1, 2, 3}, none, nan{0, std::numeric_limits<float>::quiet_NaN()};
  CHECK_THROWS_AS((void)kl_divergence(p, longer), error);
  CHECK_THROWS_AS((void)kl_divergence(none, none), error);
  CHECK_THROWS_AS((void)same_top_1(none, none), error);
  CHECK_THROWS_WITH_AS((void)kl_divergence(p, nan), "divergence: changed[1]: expected a finite logit", numeric_error);
}

}  // namespace similarity_divergence_test
