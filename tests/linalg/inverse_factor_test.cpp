#include <slimtrim/linalg/inverse_factor.hpp>

#include <doctest/doctest.h>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>

#include <cmath>
#include <cstring>
#include <limits>

namespace linalg_inverse_factor_test {

using namespace slimtrim;

namespace {

// A Gram matrix of 2 m tokens plus a hundredth of its mean diagonal.
matrix<float> damped(index_t m) {
  matrix<float> X(2 * m, m), H(m, m);
  for (index_t t = 0; t < 2 * m; ++t)
    for (index_t j = 0; j < m; ++j)
      X(t, j) = static_cast<float>(normal_at(5, static_cast<std::uint64_t>(t), static_cast<std::uint64_t>(j)) +
                                   2.0 * normal_at(6, static_cast<std::uint64_t>(t), 0));
  H.fill(0.0F);
  eigen_backend{}.gram_update(1.0F / static_cast<float>(2 * m), as_const(X.view()), H.view());
  for (index_t i = 0; i < m; ++i) H(i, i) += 0.05F;
  return H;
}

}  // namespace

TEST_CASE("equals the double-precision primitive to single precision, for every block remainder") {
  for (index_t m : {0, 1, 5, 127, 128, 129, 300}) {
    auto const H = damped(m);
    matrix<float> single(m, m), twice(m, m);
    REQUIRE(inverse_factor_single(eigen_backend{}, as_const(H.view()), single.view()));
    REQUIRE(eigen_backend{}.inverse_factor(as_const(H.view()), twice.view()));
    double worst = 0, largest = 0;
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < m; ++j) {
        if (j < i) REQUIRE(single(i, j) == 0.0F);
        worst = std::max(worst, std::fabs(static_cast<double>(single(i, j)) - static_cast<double>(twice(i, j))));
        largest = std::max(largest, std::fabs(static_cast<double>(twice(i, j))));
      }
    // Condition about 5 m / 0.1 (the common direction), so 6e-8 * 1.5e4 at m = 300.
    CHECK(worst <= 2e-3 * largest);
  }
}

TEST_CASE("what is not positive definite is refused; any number of threads gives the same bytes") {
  auto H = damped(140);
  matrix<float> R(140, 140), S(140, 140);
  thread_pool pool(3);
  REQUIRE(inverse_factor_single(eigen_backend{}, as_const(H.view()), R.view()));
  REQUIRE(inverse_factor_single(eigen_backend(pool), as_const(H.view()), S.view()));
  CHECK(std::memcmp(R.view().data, S.view().data, 140 * 140 * sizeof(float)) == 0);
  H(3, 3) = -1.0F;
  CHECK_FALSE(inverse_factor_single(eigen_backend{}, as_const(H.view()), R.view()));
  H(3, 3) = std::numeric_limits<float>::quiet_NaN();
  CHECK_FALSE(inverse_factor_single(eigen_backend{}, as_const(H.view()), R.view()));
}

}  // namespace linalg_inverse_factor_test
