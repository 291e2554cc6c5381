#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/similarity/cosine.hpp>
#include <slimtrim/tensor/buffer.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS  // CHECK_THROWS of nodiscard functions
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace similarity_cosine_test {

using namespace slimtrim;

namespace {

// Written differently from the library: normalise first, in long double, then add.
long double naive(std::vector<float> const& x, std::vector<float> const& y) {
  long double xx = 0, yy = 0, sum = 0;
  for (float v : x) xx += static_cast<long double>(v) * static_cast<long double>(v);
  for (float v : y) yy += static_cast<long double>(v) * static_cast<long double>(v);
  if (xx == 0 || yy == 0) return 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    sum += static_cast<long double>(x[i]) / std::sqrt(xx) * (static_cast<long double>(y[i]) / std::sqrt(yy));
  return sum;
}

std::vector<float> random_vector(std::size_t n, std::uint64_t stream) {
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<float>(normal_at(1, stream, i));
  return x;
}

// Counts how often the fused member is taken instead of the primitives.
struct fused_backend : reference_backend {
  mutable int calls = 0;
  void row_cosines(matrix_view<float const>, matrix_view<float const>, vector_view<float> out) const {
    ++calls;
    for (index_t i = 0; i < out.extent(0); ++i) out(i) = 0.5F;
  }
};

}  // namespace

TEST_CASE("cosine_similarity agrees with the definition at many lengths") {
  for (std::size_t n : {1U, 2U, 7U, 64U, 4097U}) {
    auto const x = random_vector(n, 2), y = random_vector(n, 3);
    double const expected = static_cast<double>(naive(x, y));
    CHECK(cosine_similarity(reference_backend{}, x, y) == doctest::Approx(expected).epsilon(1e-12));
    // Float sums: each dot has relative error below n * 2^-24 of the product of norms, in practice far less.
    CHECK(std::fabs(cosine_similarity(eigen_backend{}, x, y) - expected) < 1e-6);
    CHECK(std::fabs(cosine_similarity(x, y) - expected) < 1e-6);
  }
}

TEST_CASE("closed forms: same, opposite, orthogonal, zero, empty") {
  std::vector<float> const x{1, 2, 3}, twice{2, 4, 6}, minus{-1, -2, -3}, orthogonal{3, 0, -1}, zero{0, 0, 0}, none;
  reference_backend const b;
  CHECK(cosine_similarity(b, x, twice) == doctest::Approx(1));
  CHECK(cosine_similarity(b, x, minus) == doctest::Approx(-1));
  CHECK(cosine_similarity(b, x, orthogonal) == 0);
  CHECK(cosine_similarity(b, x, zero) == 0);
  CHECK(cosine_similarity(b, zero, zero) == 0);
  CHECK(cosine_similarity(b, none, none) == 0);
}

TEST_CASE("magnitudes that overflow or vanish when squared still give their angle") {
  std::vector<float> const huge{3e38F, 3e38F}, tiny{1e-40F, 0}, one{1, 0};
  std::vector<double> const big{1e300, 1e300}, small{1e-300, 0};
  CHECK(cosine_similarity(huge, one) == doctest::Approx(std::sqrt(0.5)));
  CHECK(cosine_similarity(tiny, one) == doctest::Approx(1));
  CHECK(cosine_similarity(reference_backend{}, big, small) == doctest::Approx(std::sqrt(0.5)));
}

TEST_CASE("NaN and infinity are reported with their index, lengths are checked") {
  std::vector<float> const x{1, std::numeric_limits<float>::quiet_NaN()}, y{1, 1},
      z{std::numeric_limits<float>::infinity(), 0}, shorter{1};
  CHECK_THROWS_WITH_AS((void)cosine_similarity(reference_backend{}, x, y),
                       "cosine_similarity: x[1]: expected a finite number", numeric_error);
  CHECK_THROWS_AS((void)cosine_similarity(y, z), numeric_error);
  CHECK_THROWS_AS((void)cosine_similarity(y, shorter), error);
}

TEST_CASE("16-bit vectors are taken as they are") {
  std::vector<bfloat16> const x{bfloat16(1), bfloat16(1)}, y{bfloat16(1), bfloat16(0)};
  CHECK(cosine_similarity(reference_backend{}, x, y) == doctest::Approx(std::sqrt(0.5)));
}

TEST_CASE("row_cosines: strided rows, zero rows, any executor, and the mean") {
  index_t const n = 131, m = 33;
  tensor<float, 2> x(n, m), y(n, m);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < m; ++j) {
      x(i, j) = static_cast<float>(normal_at(5, 0, static_cast<std::uint64_t>(i * m + j)));
      y(i, j) = i == 3 ? 0.0F : static_cast<float>(normal_at(5, 1, static_cast<std::uint64_t>(i * m + j)));
    }
  std::vector<float> serial(static_cast<std::size_t>(n)), threaded(serial);
  row_cosines(eigen_backend{}, x, y, serial);
  thread_pool pool(3);
  row_cosines(eigen_backend{pool}, x, y, threaded);
  CHECK(std::memcmp(serial.data(), threaded.data(), serial.size() * sizeof(float)) == 0);
  CHECK(serial[3] == 0);
  double sum = 0;
  for (index_t i = 0; i < n; ++i) {
    CHECK(static_cast<double>(serial[static_cast<std::size_t>(i)]) ==
          doctest::Approx(cosine_similarity(reference_backend{}, row(x.view(), i), row(y.view(), i))).epsilon(1e-5));
    sum += static_cast<double>(serial[static_cast<std::size_t>(i)]);
  }
  CHECK(mean_row_cosine(x, y) == doctest::Approx(sum / static_cast<double>(n)));
  // Columns as rows: no unit stride anywhere.
  std::vector<float> across(static_cast<std::size_t>(m));
  row_cosines(transposed(x.view()), transposed(y.view()), across);
  CHECK(
      static_cast<double>(across[4]) ==
      doctest::Approx(cosine_similarity(reference_backend{}, column(x.view(), 4), column(y.view(), 4))).epsilon(1e-5));
}

TEST_CASE("a backend's own row_cosines takes over") {
  tensor<float, 2> x(2, 3), y(2, 3);
  x.fill(1);
  y.fill(1);
  fused_backend const b;
  std::vector<float> out(2);
  row_cosines(b, x, y, out);
  CHECK(b.calls == 1);
  CHECK(mean_row_cosine(b, x, y) == 0.5);
  CHECK(b.calls == 2);
}

}  // namespace similarity_cosine_test
