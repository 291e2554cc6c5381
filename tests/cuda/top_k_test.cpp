// The largest elements of each row against a stable sort: ties, NaN, rows shorter and longer than a warp.
#include "cuda/support.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/top_k.cuh>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace cuda_top_k_test {

using namespace slimtrim;

namespace {

// values(i, j) decides; few different values make many ties.
template <class T, class Values>
void check(index_t n, index_t m, index_t k, backend_tests::layout how, Values const& values) {
  CAPTURE(n);
  CAPTURE(m);
  cuda_tests::device_memory device;
  tensor<T, 2> X(n, m);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < m; ++j) X(i, j) = static_cast<T>(values(i, j));
  auto const indices = device.matrix<std::int32_t>(n, k);
  cuda::top_k<T>(device.backend().on(), as_const(device.upload_matrix<T>(X, how)), indices);
  auto const found = device.download<std::int32_t>(indices);
  for (index_t i = 0; i < n; ++i) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(m));
    std::iota(order.begin(), order.end(), 0);
    // NaN behind all numbers: as a pair whose first part says so. Equal ones keep the order of their indices.
    std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
      T const x = X(i, a), y = X(i, b);
      if (std::isnan(x) || std::isnan(y)) return !std::isnan(x) && std::isnan(y);
      return x > y;
    });
    for (index_t s = 0; s < k; ++s)
      REQUIRE(found[static_cast<std::size_t>(i * k + s)] == order[static_cast<std::size_t>(s)]);
  }
}

double coarse(index_t i, index_t j) {
  return std::floor(4 * uniform_at(7, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(j)));
}

}  // namespace

TEST_CASE("top_k: rows of every length, with ties, all taken or few") {
  for (auto const how :
       {backend_tests::layout::rows, backend_tests::layout::padded_rows, backend_tests::layout::columns}) {
    check<float>(5, 1, 1, how, coarse);
    check<float>(17, 31, 31, how, coarse);
    check<float>(4, 33, 6, how, coarse);
    check<double>(3, 200, 9, how, coarse);
  }
  check<float>(0, 8, 2, backend_tests::layout::rows, coarse);
  check<float>(3, 40, 0, backend_tests::layout::rows, coarse);
}

TEST_CASE("top_k: NaN comes last, infinities are numbers, signed zeros tie") {
  double const nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  check<float>(2, 50, 50, backend_tests::layout::rows, [&](index_t i, index_t j) {
    return j % 5 == i ? nan : (j % 7 == 0 ? -infinity : (j % 11 == 0 ? infinity : coarse(i, j)));
  });
  check<float>(1, 40, 40, backend_tests::layout::rows, [&](index_t, index_t) { return nan; });
  check<float>(1, 40, 40, backend_tests::layout::rows, [&](index_t, index_t j) { return j % 2 == 0 ? -0.0 : 0.0; });
}

TEST_CASE("top_k: the order of candidates, where none comes behind all") {
  using one = cuda::candidate<float>;
  float const nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<one> const ordered{{2, 9}, {1, 3}, {1, 4}, {nan, 0}, {nan, 1}, {5, -1}};
  for (std::size_t a = 0; a < ordered.size(); ++a)
    for (std::size_t b = 0; b < ordered.size(); ++b) CHECK(cuda::comes_before(ordered[a], ordered[b]) == (a < b));
}

}  // namespace cuda_top_k_test
