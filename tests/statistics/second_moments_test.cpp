#include <slimtrim/backend/reference.hpp>
#include <slimtrim/statistics/second_moments.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace statistics_second_moments_test {

using namespace slimtrim;

TEST_CASE("moments by hand; strided input; a group without rows") {
  std::vector<float> const x{1, -2, 9, 3, 4, 9};
  second_moments s("moments.down", 2, 2);
  s.add(reference_backend{}, 1, columns(matrix_view<float const>(x.data(), 2, 3), 0, 2));
  s.commit_window();
  CHECK(s.count(1) == 2);
  CHECK(s.mean_square(1, 0) == 5);
  CHECK(s.mean_square(1, 1) == 10);
  CHECK(s.mean_magnitude(1, 0) == 2);
  CHECK(s.mean_magnitude(1, 1) == 3);
  CHECK(s.mean_square(0, 0) == 0);
  s.visit([](exact_array const& array) { CHECK(array.name().rfind("moments.down.", 0) == 0); });
}

}  // namespace statistics_second_moments_test
