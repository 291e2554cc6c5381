#include <slimtrim/importance/super_expert_guard.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <vector>

namespace importance_super_expert_guard_test {

using namespace slimtrim;

TEST_CASE("only experts above the quantile and a tenth of the largest, in the first layers") {
  std::vector<std::vector<double>> largest(4, std::vector<double>(100, 1.0));
  largest[0][7] = 500;   // guarded
  largest[1][3] = 60;    // above the quantile, above a tenth
  largest[2][0] = 49;    // above the quantile, below a tenth
  largest[3][1] = 1000;  // in the last quarter
  auto const wide = super_experts(largest, {.percentile = .98, .share_of_largest = .05});
  CHECK(wide[0][7]);
  CHECK(wide[1][3]);
  CHECK_FALSE(wide[2][0]);
  CHECK_FALSE(wide[3][1]);
  CHECK_FALSE(wide[0][0]);
  // The default quantile of 400 values lies between the second and the third largest: .995 * 399 = 397.005.
  auto const narrow = super_experts(largest);
  CHECK(narrow[0][7]);
  CHECK_FALSE(narrow[1][3]);
}

TEST_CASE("edges") {
  CHECK(super_experts({}).empty());
  auto const even = super_experts({{2, 2}, {2, 2}});
  CHECK_FALSE(even[0][0]);
  CHECK_THROWS_AS(super_experts({{1}}, {.percentile = 99.5}), error);
}

}  // namespace importance_super_expert_guard_test
