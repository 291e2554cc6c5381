#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/similarity/cka.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

namespace similarity_cka_test {

using namespace slimtrim;

namespace {

tensor<float, 2> random_matrix(index_t n, index_t m, std::uint64_t stream) {
  tensor<float, 2> x(n, m);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < m; ++j)
      x(i, j) = static_cast<float>(normal_at(2, stream, static_cast<std::uint64_t>(i * m + j)));
  return x;
}

// The other definition: HSIC of centred Gram matrices over samples.
double by_samples(tensor<float, 2> const& x, tensor<float, 2> const& y) {
  index_t const n = x.extent(0);
  auto const gram = [n](tensor<float, 2> const& z) {
    tensor<double, 2> k(n, n), c(n, n);
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < n; ++j) {
        k(i, j) = 0;
        for (index_t f = 0; f < z.extent(1); ++f)
          k(i, j) += static_cast<double>(z(i, f)) * static_cast<double>(z(j, f));
      }
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < n; ++j) {
        double row_mean = 0, column_mean = 0, mean = 0;
        for (index_t a = 0; a < n; ++a) {
          row_mean += k(i, a) / static_cast<double>(n);
          column_mean += k(a, j) / static_cast<double>(n);
          for (index_t b = 0; b < n; ++b) mean += k(a, b) / static_cast<double>(n * n);
        }
        c(i, j) = k(i, j) - row_mean - column_mean + mean;
      }
    return c;
  };
  auto const k = gram(x), l = gram(y);
  double kl = 0, kk = 0, ll = 0;
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < n; ++j) {
      kl += k(i, j) * l(i, j);
      kk += k(i, j) * k(i, j);
      ll += l(i, j) * l(i, j);
    }
  return kl / std::sqrt(kk * ll);
}

}  // namespace

TEST_CASE("features and samples give the same CKA") {
  auto const x = random_matrix(9, 4, 0), y = random_matrix(9, 6, 1);
  CHECK(linear_cka(reference_backend{}, x, y) == doctest::Approx(by_samples(x, y)).epsilon(1e-9));
}

TEST_CASE("invariant to rotation, scale and shift; 0 for what does not vary") {
  auto const x = random_matrix(20, 2, 3);
  tensor<float, 2> turned(20, 2), constant(20, 3);
  constant.fill(0.1F);
  for (index_t i = 0; i < 20; ++i) {
    turned(i, 0) = 1e20F * (0.6F * x(i, 0) - 0.8F * x(i, 1));
    turned(i, 1) = 1e20F * (0.8F * x(i, 0) + 0.6F * x(i, 1));
  }
  CHECK(linear_cka(reference_backend{}, x, turned) == doctest::Approx(1).epsilon(1e-6));
  CHECK(linear_cka(reference_backend{}, x, constant) == 0);
  CHECK(linear_cka(reference_backend{}, random_matrix(1, 2, 0), random_matrix(1, 2, 1)) == 0);
}

TEST_CASE("bad input") {
  auto x = random_matrix(3, 2, 0);
  CHECK_THROWS_AS((void)linear_cka(reference_backend{}, x, random_matrix(4, 2, 0)), error);
  CHECK_THROWS_AS((void)linear_cka(reference_backend{}, random_matrix(0, 2, 0), random_matrix(0, 2, 0)), error);
  x(2, 1) = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH_AS((void)linear_cka(reference_backend{}, x, random_matrix(3, 2, 0)),
                       "linear_cka: X[2, 1]: expected a finite number", numeric_error);
}

}  // namespace similarity_cka_test
