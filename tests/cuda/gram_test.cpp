// H += alpha Xᵀ X against outer products of one row after another, in every layout and type of activations.
#include "cuda/support.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/gram.cuh>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

namespace cuda_gram_test {

using namespace slimtrim;
using backend_tests::layout;

namespace {

template <class T, class Result>
void check(index_t n, index_t m, layout of_x, layout of_h, Result alpha) {
  CAPTURE(n);
  CAPTURE(m);
  cuda_tests::device_memory device;
  tensor<T, 2> X(n, m);
  tensor<Result, 2> H(m, m);
  for (index_t i = 0; i < n * m; ++i)
    X.view().data[i] = static_cast<T>(static_cast<Result>(normal_at(1, 1, static_cast<std::uint64_t>(i))));
  // The lower triangle decides; what stands above it must not matter.
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < m; ++j)
      H(i, j) = i >= j ? static_cast<Result>(normal_at(1, 2, static_cast<std::uint64_t>(i * m + j)))
                       : static_cast<Result>(std::nan(""));
  std::vector<double> sums, sizes;
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < m; ++j) {
      sums.push_back(static_cast<double>(H(std::max(i, j), std::min(i, j))));
      sizes.push_back(std::abs(sums.back()));
    }
  for (index_t t = 0; t < n; ++t)
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < m; ++j) {
        double const part = static_cast<double>(alpha) * static_cast<double>(static_cast<Result>(X(t, i))) *
                            static_cast<double>(static_cast<Result>(X(t, j)));
        sums[static_cast<std::size_t>(i * m + j)] += part;
        sizes[static_cast<std::size_t>(i * m + j)] += std::abs(part);
      }
  auto const h = device.upload_matrix<Result>(H, of_h);
  cuda::gram_update<T, Result>(device.backend().on(), alpha, as_const(device.upload_matrix<T>(X, of_x)), h);
  auto const dense = device.matrix<Result>(m, m);
  cuda::copy_elements<Result, Result>(device.backend().on(), as_const(h), dense);
  auto const found = device.download<Result>(dense);
  // n products and additions, alpha and the addition to H.
  double const unit = std::is_same_v<Result, double> ? 0x1p-53 : 0x1p-24, doubt = static_cast<double>(n + 3) * unit;
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < m; ++j) {
      auto const at = static_cast<std::size_t>(i * m + j);
      REQUIRE(std::abs(static_cast<double>(found[at]) - sums[at]) <= doubt * sizes[at] * 1.01);
      REQUIRE(found[at] == found[static_cast<std::size_t>(j * m + i)]);  // exactly symmetric
    }
}

}  // namespace

TEST_CASE("gram: activations of every type and layout, H in both orders") {
  for (auto const of_x : {layout::rows, layout::columns, layout::padded_rows})
    for (auto const of_h : {layout::rows, layout::columns, layout::padded_rows}) {
      check<float, float>(17, 9, of_x, of_h, 0.5F);
      check<double, double>(5, 20, of_x, of_h, -2.0);
      check<bfloat16, float>(17, 9, of_x, of_h, 2.0F);
      check<float16, float>(3, 33, of_x, of_h, 1.0F);
    }
}

TEST_CASE("gram: one row, one column, no rows, which still mirror, and no columns") {
  check<float, float>(1, 7, layout::rows, layout::rows, 1.0F);
  check<bfloat16, float>(40, 1, layout::rows, layout::rows, 1.0F);
  check<float, float>(0, 7, layout::rows, layout::rows, 1.0F);
  check<bfloat16, float>(0, 7, layout::rows, layout::columns, 1.0F);
  check<float, float>(7, 0, layout::rows, layout::rows, 1.0F);
}

}  // namespace cuda_gram_test
