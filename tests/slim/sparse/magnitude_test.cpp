#include <slimtrim/slim/sparse/magnitude.hpp>

#include <doctest/doctest.h>

#include <slimtrim/backend/eigen.hpp>

#include <slim/support.hpp>

#include <algorithm>
#include <limits>
#include <vector>

namespace slim_sparse_magnitude_test {

using namespace slimtrim;
using namespace slimtrim_test;

TEST_CASE("the large weights stay (not the small ones), exactly as many as asked for") {
  auto const W = random_weight(13, 37, 5);
  for (double rate : {0.0, 0.25, 0.5, 0.9, 1.0}) {
    auto const m = magnitude_mask(eigen_backend{}, W, {.rate = rate});
    index_t const pruned = static_cast<index_t>(rate * 13 * 37 + 1e-9);
    CHECK(popcount(m.view()) == 13 * 37 - pruned);
    float smallest_kept = 1e30F, largest_pruned = 0;
    for (index_t r = 0; r < 13; ++r)
      for (index_t c = 0; c < 37; ++c) {
        float const size = std::fabs(W(r, c));
        if (m(r, c)) smallest_kept = std::min(smallest_kept, size);
        else largest_pruned = std::max(largest_pruned, size);
      }
    CHECK(largest_pruned <= smallest_kept);
  }
  auto const m = magnitude_mask(eigen_backend{}, W, {.keep = 2, .of = 4});
  CHECK(follows(m.view(), {.keep = 2, .of = 4}));
}

TEST_CASE("ties keep the lower index; empty and non-finite weights") {
  matrix<float> W(2, 4);
  W.fill(-1.0F);
  auto const m = magnitude_mask(eigen_backend{}, W, {.rate = 0.5});
  for (index_t c = 0; c < 4; ++c) {
    CHECK(m(0, c));
    CHECK_FALSE(m(1, c));
  }
  matrix<float> none(0, 4);
  CHECK(magnitude_mask(eigen_backend{}, none, {.rate = 0.5}).rows() == 0);
  W(1, 2) = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS((void)magnitude_mask(eigen_backend{}, W, {.rate = 0.5}), input_error);
}

}  // namespace slim_sparse_magnitude_test
