// Dots, squared column sums and cosines of rows against sums in long double, at the edges of warps, blocks and panels.
#include "cuda/support.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/rows.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace cuda_rows_test {

using namespace slimtrim;
using backend_tests::layout;

namespace {

template <class T>
tensor<T, 2> random(index_t n, index_t m, std::uint64_t seed, double size = 1) {
  tensor<T, 2> X(n, m);
  for (index_t i = 0; i < n * m; ++i) {
    double const value = size * normal_at(seed, 1, static_cast<std::uint64_t>(i));
    if constexpr (std::is_same_v<T, double>)
      X.view().data[i] = value;
    else
      X.view().data[i] = T(static_cast<float>(value));
  }
  return X;
}
template <class T>
long double wide(T x) {
  if constexpr (std::is_same_v<T, double>)
    return x;
  else
    return static_cast<long double>(static_cast<float>(x));
}

template <class T>
void check_cosines(index_t n, index_t m, layout how, double tolerance, double size = 1) {
  CAPTURE(m);
  cuda_tests::device_memory device;
  auto const X = random<T>(n, m, 1, size), Y = random<T>(n, m, 2, size);
  auto const out = device.vector<double>(n);
  cuda::row_cosines<T, double>(device.backend().on(), as_const(device.upload_matrix<T>(X, how)),
                               as_const(device.upload_matrix<T>(Y, how)), out);
  device.backend().synchronise();
  auto const found = device.download<double>(out);
  for (index_t i = 0; i < n; ++i) {
    long double xy = 0, xx = 0, yy = 0;
    for (index_t j = m - 1; j >= 0; --j) {
      xy += wide(X(i, j)) * wide(Y(i, j));
      xx += wide(X(i, j)) * wide(X(i, j));
      yy += wide(Y(i, j)) * wide(Y(i, j));
    }
    long double const expected = xx > 0 && yy > 0 ? xy / std::sqrt(xx) / std::sqrt(yy) : 0;
    REQUIRE(std::abs(found[static_cast<std::size_t>(i)] - static_cast<double>(expected)) <= tolerance);
  }
}

}  // namespace

TEST_CASE("rows: dots of vectors of one panel, several, and none") {
  cuda_tests::device_memory device;
  for (index_t n : {0, 1, 17, 8192, 8193, 20000}) {
    auto const x = random<float>(1, n, 3), y = random<float>(1, n, 4);
    long double expected = 0, size = 0;
    for (index_t i = n - 1; i >= 0; --i) {
      expected += wide(x(0, i)) * wide(y(0, i));
      size += std::abs(wide(x(0, i)) * wide(y(0, i)));
    }
    double const found =
        cuda::dot<float>(device.backend().on(), device_vector<float const>(device.keep<float>(x.view().data, n), n),
                         device_vector<float const>(device.keep<float>(y.view().data, n), n));
    // Products of floats are exact in double; n additions.
    CHECK(std::abs(found - static_cast<double>(expected)) <=
          static_cast<double>(n) * 0x1p-53 * static_cast<double>(size));
  }
}

TEST_CASE("rows: dots of rows in any layout, and squared sums of columns over one panel of rows and more") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  for (auto const how : {layout::rows, layout::columns, layout::padded_rows})
    for (index_t n : {0, 1, 9, 513}) {
      index_t const m = n == 513 ? 5 : 259;
      auto const X = random<float>(n, m, 5), Y = random<float>(n, m, 6);
      auto const x = as_const(device.upload_matrix<float>(X, how)), y = as_const(device.upload_matrix<float>(Y, how));
      auto const dots = device.vector<float>(n);
      auto const squares = device.vector<double>(m);
      cuda::row_dots<float>(on, x, y, dots);
      cuda::column_square_sums<float, double>(on, x, squares);
      auto const by_row = device.download<float>(dots);
      auto const by_column = device.download<double>(squares);
      for (index_t i = 0; i < n; ++i) {
        long double sum = 0, size = 0;
        for (index_t j = 0; j < m; ++j) {
          sum += wide(X(i, j)) * wide(Y(i, j));
          size += std::abs(wide(X(i, j)) * wide(Y(i, j)));
        }
        // Rounded to float once, after sums in double.
        REQUIRE(std::abs(static_cast<long double>(by_row[static_cast<std::size_t>(i)]) - sum) <=
                0x1p-24L * std::abs(sum) + 1e-12L * size);
      }
      for (index_t j = 0; j < m; ++j) {
        long double sum = 0;
        for (index_t i = 0; i < n; ++i) sum += wide(X(i, j)) * wide(X(i, j));
        REQUIRE(std::abs(static_cast<long double>(by_column[static_cast<std::size_t>(j)]) - sum) <= 1e-12L * sum);
      }
    }
}

TEST_CASE("rows: cosines by 16 bytes and one by one, every type") {
  // Sums within 16 bytes are of T's accumulator: at most 8 additions and a product in float, then double.
  double const in_float = 9 * 0x1p-24 * 2;
  for (index_t m : {1, 7, 8, 256, 264, 1000}) {
    check_cosines<float>(17, m, layout::rows, in_float);
    check_cosines<bfloat16>(9, m, layout::rows, in_float);
    check_cosines<float16>(3, m, layout::padded_rows, in_float);
    check_cosines<double>(8, m, layout::columns, 1e-14);
  }
  check_cosines<float>(0, 8, layout::rows, 0);
  check_cosines<float>(2, 0, layout::rows, 0);
}

TEST_CASE("rows: cosines of rows whose squares leave the range of float") {
  double const in_float = 12 * 0x1p-24 * 2;  // scaled first, one more rounding for each factor
  check_cosines<float>(3, 40, layout::rows, in_float, 1e-25);
  check_cosines<float>(3, 40, layout::rows, in_float, 1e-21);  // squares that keep a few bits
  check_cosines<float>(3, 40, layout::rows, in_float, 1e30);
  check_cosines<bfloat16>(3, 33, layout::rows, in_float, 1e30);
}

TEST_CASE("rows: a zero row has cosine 0, equal rows 1 at most, a row that is not finite is reported") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  auto X = random<float>(4, 19, 7);
  for (index_t j = 0; j < 19; ++j) X(1, j) = 0;
  auto const out = device.vector<float>(4);
  auto const x = as_const(device.upload_matrix<float>(X));
  cuda::row_cosines<float, float>(on, x, x, out);
  on.synchronise();
  auto const found = device.download<float>(out);
  CHECK(found == std::vector<float>{1, 0, 1, 1});
  X(2, 18) = std::numeric_limits<float>::quiet_NaN();
  auto const bad = as_const(device.upload_matrix<float>(X));
  cuda::row_cosines<float, float>(on, x, bad, out);
  CHECK_THROWS_WITH_AS(on.synchronise(), "cuda: element 2 of an operand: expected a finite number", numeric_error);
  CHECK(device.download<float>(out)[2] == 0.0F);
  on.synchronise();  // reported once
}

}  // namespace cuda_rows_test
