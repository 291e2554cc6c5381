// Factors and solutions of positive definite systems, judged by what they must satisfy: Rᵀ R H = 1 and H X = B.
#include "cuda/support.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/factor.cuh>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

namespace cuda_factor_test {

using namespace slimtrim;
using backend_tests::layout;

namespace {

// A Aᵀ + 1 with A of elements below one: eigenvalues between 1 and 1 + m².
tensor<double, 2> definite(index_t m) {
  tensor<double, 2> A(m, m), H(m, m);
  for (index_t i = 0; i < m * m; ++i) A.view().data[i] = uniform_at(8, 1, static_cast<std::uint64_t>(i)) - 0.5;
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < m; ++j) {
      H(i, j) = i == j ? 1 : 0;
      for (index_t k = 0; k < m; ++k) H(i, j) += A(i, k) * A(j, k);
    }
  return H;
}
template <class T>
tensor<T, 2> rounded(tensor<double, 2> const& from) {
  tensor<T, 2> to(from.extent(0), from.extent(1));
  for (index_t i = 0; i < from.view().size(); ++i) to.view().data[i] = static_cast<T>(from.view().data[i]);
  return to;
}
template <class T>
double doubt() {  // of a factor or solution rounded to T, with m up to 33 and a condition below 100
  return std::is_same_v<T, double> ? 1e-11 : 33 * 100 * 0x1p-24;
}

template <class T>
void check_factor(index_t m, layout how) {
  CAPTURE(m);
  cuda_tests::device_memory device;
  auto const H = rounded<T>(definite(m));
  auto const R = device.matrix<T>(m, m);
  REQUIRE(cuda::inverse_factor<T>(device.backend().on(), as_const(device.upload_matrix<T>(H, how)), R));
  auto const r = device.download<T>(R);
  auto const at = [&](index_t i, index_t j) { return static_cast<double>(r[static_cast<std::size_t>(i * m + j)]); };
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < m; ++j) {
      if (i > j) REQUIRE(at(i, j) == 0);
      if (i == j) REQUIRE(at(i, j) > 0);
      double sum = 0;  // (Rᵀ R H)(i, j)
      for (index_t k = 0; k < m; ++k)
        for (index_t l = 0; l <= std::min(i, k); ++l) sum += at(l, i) * at(l, k) * static_cast<double>(H(k, j));
      REQUIRE(std::abs(sum - (i == j ? 1 : 0)) <= doubt<T>());
    }
}

template <class T>
void check_solution(index_t m, index_t p, layout how) {
  CAPTURE(m);
  cuda_tests::device_memory device;
  auto const H = rounded<T>(definite(m));
  tensor<T, 2> B(m, p);
  for (index_t i = 0; i < m * p; ++i)
    B.view().data[i] = static_cast<T>(uniform_at(8, 2, static_cast<std::uint64_t>(i)) - 0.5);
  auto const b = device.upload_matrix<T>(B, how);
  REQUIRE(cuda::solve_positive_definite<T>(device.backend().on(), device.upload_matrix<T>(H, how), b));
  auto const dense = device.matrix<T>(m, p);
  cuda::copy_elements<T, T>(device.backend().on(), as_const(b), dense);
  auto const x = device.download<T>(dense);
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < p; ++j) {
      double sum = 0;
      for (index_t k = 0; k < m; ++k)
        sum += static_cast<double>(H(i, k)) * static_cast<double>(x[static_cast<std::size_t>(k * p + j)]);
      REQUIRE(std::abs(sum - static_cast<double>(B(i, j))) <= doubt<T>());
    }
}

}  // namespace

TEST_CASE("factor: the upper factor of the inverse, sizes beside one and two warps, every layout") {
  for (auto const how : {layout::rows, layout::columns, layout::padded_rows})
    for (index_t m : {0, 1, 2, 17, 33}) {
      check_factor<double>(m, how);
      check_factor<float>(m, how);
    }
}

TEST_CASE("factor: solutions of one right side and several, and of none") {
  for (auto const how : {layout::rows, layout::columns, layout::padded_rows}) {
    for (index_t m : {0, 1, 17}) check_solution<float>(m, 3, how);
    check_solution<double>(33, 1, how);
    check_solution<double>(5, 0, how);
  }
}

TEST_CASE("factor: what is not positive definite has none, and the right side stays") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  double const nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  for (double const last : {0.0, -1.0, nan, infinity}) {
    CAPTURE(last);
    auto H = definite(5);
    for (index_t j = 0; j < 5; ++j) H(4, j) = H(j, 4) = j == 4 ? last : 0.0;
    auto const h = device.upload_matrix<double>(H);
    CHECK_FALSE(cuda::inverse_factor<double>(on, as_const(h), device.matrix<double>(5, 5)));
    auto const B = definite(5);
    auto const b = device.upload_matrix<double>(B);
    CHECK_FALSE(cuda::solve_positive_definite<double>(on, h, b));
    CHECK(device.download<double>(b) == std::vector<double>(B.view().data, B.view().data + 25));
  }
}

}  // namespace cuda_factor_test
