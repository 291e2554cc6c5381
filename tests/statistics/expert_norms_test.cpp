#include <slimtrim/backend/reference.hpp>
#include <slimtrim/statistics/expert_norms.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <vector>

namespace statistics_expert_norms_test {

using namespace slimtrim;

TEST_CASE("two tokens, two experts, by hand") {
  // Token 0 takes expert 0 (g 3/4, p .6) and 1 (g 1/4, p .2); token 1 takes expert 1 alone (g 1, p .5).
  std::vector<float> const probabilities{.6F, .2F, .5F, .5F};
  std::vector<std::int32_t> const indices{0, 1, 1, -1};
  std::vector<float> const weights{.75F, .25F, 1, 0};
  routing_view const routing{matrix_view<float const>(probabilities.data(), 2, 2),
                             matrix_view<std::int32_t const>(indices.data(), 2, 2),
                             matrix_view<float const>(weights.data(), 2, 2)};
  std::vector<float> const f0{3, -4}, f1{0, 2, -6, 8};  // norms 5; 2 and 10
  std::vector<std::int32_t> const t0{0}, s0{0}, t1{0, 1}, s1{1, 0};
  std::vector<double> const change{.5, .25};
  expert_norms s(2);
  s.begin_window(2, 2);
  s.add_outputs(reference_backend{}, 0, t0, s0, matrix_view<float const>(f0.data(), 1, 2));
  s.add_outputs(reference_backend{}, 1, t1, s1, matrix_view<float const>(f1.data(), 2, 2));
  s.add(routing, change);
  s.commit_window();
  CHECK(s.norm(0) == 5);
  CHECK(s.norm(1) == 12);
  CHECK(s.square(1) == 104);
  CHECK(s.weighted(0) == 3.75);
  CHECK(s.weighted(1) == 10.5);
  CHECK(s.raw_weighted(1) == doctest::Approx(.2 * 2 + .5 * 10));
  CHECK(s.renormalised_weighted(0) == doctest::Approx(.75 * 5));
  CHECK(s.weighted_square(1) == 100.25);
  CHECK(s.change_weighted(0) == 1.875);
  CHECK(s.change_weighted(1) == .25 + 2.5);
  CHECK(s.largest(0) == 4);  // magnitude, not signed
  CHECK(s.largest(1) == 8);
  CHECK(s.pair(0, 1) == 3.75 * .5);
  CHECK(s.pair(1, 0) == 3.75 * .5);
  CHECK(s.pair(1, 1) == 100.25);
}

TEST_CASE("positions outside the window and wrong lengths are refused") {
  expert_norms s(2);
  s.begin_window(1, 1);
  std::vector<float> const f{1, 2};
  std::vector<std::int32_t> const zero{0}, one{1};
  auto const view = matrix_view<float const>(f.data(), 1, 2);
  CHECK_THROWS_AS(s.add_outputs(reference_backend{}, 2, zero, zero, view), error);
  CHECK_THROWS_AS(s.add_outputs(reference_backend{}, 0, one, zero, view), error);
  CHECK_THROWS_AS(s.add_outputs(reference_backend{}, 0, {}, {}, view), error);
  CHECK_NOTHROW(s.add_outputs(reference_backend{}, 0, {}, {}, matrix_view<float const>(nullptr, 0, 2)));
}

}  // namespace statistics_expert_norms_test
