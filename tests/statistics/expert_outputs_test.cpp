#include <slimtrim/backend/reference.hpp>
#include <slimtrim/statistics/expert_outputs.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <vector>

namespace statistics_expert_outputs_test {

using namespace slimtrim;

TEST_CASE("mean and variance by hand; an expert without tokens is zero") {
  std::vector<float> const f{1, 5, 3, 5};
  expert_outputs s(2, 2);
  s.add(reference_backend{}, 1, matrix_view<float const>(f.data(), 2, 2));
  s.commit_window();
  CHECK(s.count(1) == 2);
  CHECK(s.mean(1) == std::vector<double>{2, 5});
  CHECK(s.variance(1) == std::vector<double>{1, 0});
  CHECK(s.mean(0) == std::vector<double>{0, 0});
  CHECK(s.variance(0) == std::vector<double>{0, 0});
  CHECK_THROWS_AS(s.add(reference_backend{}, 2, matrix_view<float const>(f.data(), 2, 2)), error);
  CHECK_THROWS_AS(s.add(reference_backend{}, 0, matrix_view<float const>(f.data(), 1, 4)), error);
}

}  // namespace statistics_expert_outputs_test
