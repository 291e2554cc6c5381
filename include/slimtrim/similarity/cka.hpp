// Linear centred kernel alignment: whether two layers hold the same information, whatever the basis.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/tensor/adapt.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {

namespace detail {

// x in double with every column's mean taken away, scaled to a largest element of 1: CKA does not see the scale.
template <class T>
[[nodiscard]] tensor<double, 2> centred(matrix_view<T const> x, char const* name) {
  index_t const n = x.extent(0), m = x.extent(1);
  tensor<double, 2> result(n, m);
  double largest = 0;
  for (index_t j = 0; j < m; ++j) {
    double mean = 0;
    for (index_t i = 0; i < n; ++i) {
      double const value = static_cast<double>(x(i, j));
      if (!std::isfinite(value))
        throw numeric_error(std::string("linear_cka: ") + name + "[" + std::to_string(i) + ", " + std::to_string(j) +
                            "]: expected a finite number");
      mean += value / static_cast<double>(n);
    }
    for (index_t i = 0; i < n; ++i) {
      double const difference = static_cast<double>(x(i, j)) - mean;
      // What is left of a constant column after rounding is not a difference.
      result(i, j) = std::fabs(difference) <= 1e-14 * std::fabs(mean) ? 0.0 : difference;
      largest = std::max(largest, std::fabs(result(i, j)));
    }
  }
  if (largest > 0)
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < m; ++j) result(i, j) /= largest;
  return result;
}

// |A B|_F^2 and the like: the sum of squares of a product that is formed once.
template <class B>
[[nodiscard]] double product_square(B const& backend, matrix_view<double const> a, matrix_view<double const> b) {
  tensor<double, 2> product(a.extent(0), b.extent(1));
  backend.gemm(1.0, a, b, 0.0, product.view());
  double sum = 0;
  for (index_t i = 0; i < product.extent(0); ++i)
    for (index_t j = 0; j < product.extent(1); ++j) sum += product(i, j) * product(i, j);
  return sum;
}

}  // namespace detail

/// Linear CKA of two sets of features of the same n samples, in [0, 1]:
///
///     cka(X, Y) = |Y_c^T X_c|_F^2 / (|X_c^T X_c|_F |Y_c^T Y_c|_F),   columns centred; 0 when either is constant
///
/// Kornblith et al., arXiv 1905.00414, eq. 4. Invariant to rotation and scale of either side. X: [n, p], Y: [n, q],
/// host memory, n >= 1. Double throughout. Cost O(n max(p, q)^2), memory max(p, q)^2 doubles besides copies of X and Y.
/// Throws `error` on different n or no samples, `numeric_error` on NaN or infinity. Deterministic.
template <host_backend B, matrix_like X, matrix_like Y>
[[nodiscard]] double linear_cka(B const& backend, X&& x, Y&& y) {
  auto const a = as_const_matrix(x);
  auto const b = as_const_matrix(y);
  expects(a.extent(0) > 0, "linear_cka", "expected at least one sample");
  expects_equal(b.extent(0), a.extent(0), "linear_cka", "rows of Y");
  auto const left = detail::centred<typename decltype(a)::value_type>(a, "X");
  auto const right = detail::centred<typename decltype(b)::value_type>(b, "Y");
  double const xx = detail::product_square(backend, transposed(left.view()), left.view());
  double const yy = detail::product_square(backend, transposed(right.view()), right.view());
  if (xx == 0 || yy == 0) return 0;
  double const xy = detail::product_square(backend, transposed(right.view()), left.view());
  return std::min(1.0, xy / (std::sqrt(xx) * std::sqrt(yy)));
}

/// The same on `default_backend`: include slimtrim/backend/eigen.hpp.
template <matrix_like X, matrix_like Y>
[[nodiscard]] double linear_cka(X&& x, Y&& y) {
  using view = decltype(as_const_matrix(x));
  return linear_cka(default_backend<view::memory>{}, x, y);
}

}  // namespace v0
}  // namespace slimtrim
