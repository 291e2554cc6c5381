#include <slimtrim/backend/reference.hpp>
#include <slimtrim/statistics/similarity_statistics.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace statistics_similarity_statistics_test {

using namespace slimtrim;

TEST_CASE("one token by hand, then a second one") {
  // x = (1,0), x' = (3,4), norm(x') = (1,1), MoE = (-3,0), y = (0,4).
  std::vector<float> const x{1, 0}, residual{3, 4}, input{1, 1}, output{-3, 0}, y{0, 4};
  auto const one = [](std::vector<float> const& v) { return matrix_view<float const>(v.data(), 1, 2); };
  similarity_statistics s;
  s.add(reference_backend{}, {one(x), one(residual), one(input), one(output), one(y)});
  s.commit_window();
  CHECK(s.tokens() == 1);
  CHECK(s.block() == 0);
  CHECK(s.attention() == doctest::Approx(.6));
  CHECK(s.moe() == doctest::Approx(.8));
  CHECK(s.moe_without_norm() == doctest::Approx(-std::sqrt(.5)));
  CHECK(s.block_angle() == doctest::Approx(.5));
  CHECK(s.moe_angle() == doctest::Approx(std::acos(.8) / std::acos(-1.0)));
  CHECK(s.residual_norm() == 5);
  CHECK(s.residual_square() == 25);
  CHECK(s.moe_output_norm() == 3);
  CHECK(s.moe_output_square() == 9);
  CHECK(s.change().size() == 1);
  CHECK(s.change()[0] == doctest::Approx(.2));
  // A token that the layer leaves alone.
  std::vector<float> const zero{0, 0};
  s.add(reference_backend{}, {one(residual), one(residual), one(input), one(zero), one(residual)});
  s.commit_window();
  CHECK(s.moe() == doctest::Approx(.9));
  CHECK(s.moe_output_square() == 4.5);
  CHECK(s.change()[0] == doctest::Approx(0).epsilon(1e-7));
}

TEST_CASE("no tokens: means are zero, not NaN") {
  similarity_statistics const s;
  CHECK(s.block() == 0);
  CHECK(s.residual_norm() == 0);
}

}  // namespace statistics_similarity_statistics_test
