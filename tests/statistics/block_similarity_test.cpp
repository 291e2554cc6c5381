#include <slimtrim/backend/reference.hpp>
#include <slimtrim/statistics/block_similarity.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <vector>

namespace statistics_block_similarity_test {

using namespace slimtrim;

TEST_CASE("around(first, count) compares what enters the run with what leaves it") {
  // Three layers turn the stream by 0, 60, 60 degrees more.
  std::vector<float> const h0{1, 0}, h1{2, 0}, h2{1, 1.7320508F}, h3{-1, 1.7320508F};
  auto const one = [](std::vector<float> const& v) { return matrix_view<float const>(v.data(), 1, 2); };
  std::vector<matrix_view<float const>> const streams{one(h0), one(h1), one(h2), one(h3)};
  block_similarity s(3);
  s.add(reference_backend{}, streams);
  s.commit_window();
  CHECK(s.around(0, 1) == doctest::Approx(1));
  CHECK(s.around(1, 1) == doctest::Approx(.5));
  CHECK(s.around(0, 2) == doctest::Approx(.5));
  CHECK(s.around(1, 2) == doctest::Approx(-.5));
  CHECK(s.around(0, 3) == doctest::Approx(-.5));
  CHECK_THROWS_AS(s.around(2, 2), error);
  CHECK_THROWS_AS(s.add(reference_backend{}, std::span(streams).first(3)), error);
}

}  // namespace statistics_block_similarity_test
