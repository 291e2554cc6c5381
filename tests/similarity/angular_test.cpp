#include <slimtrim/backend/reference.hpp>
#include <slimtrim/similarity/angular.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace similarity_angular_test {

using namespace slimtrim;

TEST_CASE("angular distance at known angles") {
  CHECK(angular_distance(1.0) == 0);
  CHECK(angular_distance(1.0000001) == 0);
  CHECK(angular_distance(0.0) == doctest::Approx(0.5));
  CHECK(angular_distance(-1.0) == doctest::Approx(1));
  std::vector<float> const x{1, 0}, diagonal{1, 1}, zero{0, 0};
  CHECK(angular_distance(reference_backend{}, x, diagonal) == doctest::Approx(0.25));
  CHECK(angular_distance(reference_backend{}, x, zero) == doctest::Approx(0.5));
}

}  // namespace similarity_angular_test
