// Cosine similarity of vectors and of the rows of two matrices: the number behind Layer Drop and Block Drop.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/core/numeric.hpp>
#include <slimtrim/tensor/adapt.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <cmath>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {

namespace detail {

[[nodiscard]] inline double clamped_cosine(double dot, double x_norm, double y_norm) {
  double const ratio = dot / x_norm / y_norm;
  return ratio > 1 ? 1.0 : (ratio < -1 ? -1.0 : ratio);
}

// Largest magnitude of x, in double; the place where a NaN or infinity is found and reported.
template <class T>
[[nodiscard]] double checked_magnitude(vector_view<T const> x, char const* name) {
  double largest = 0;
  for (index_t i = 0; i < x.extent(0); ++i) {
    double const value = std::fabs(static_cast<double>(static_cast<accumulator_t<T>>(x(i))));
    if (!std::isfinite(value))
      throw numeric_error(std::string("cosine_similarity: ") + name + "[" + std::to_string(i) +
                          "]: expected a finite number");
    if (value > largest) largest = value;
  }
  return largest;
}

// Both vectors scaled to a largest element of 1 first, so that no square overflows or vanishes.
template <class T>
[[nodiscard]] double scaled_cosine(vector_view<T const> x, vector_view<T const> y) {
  double const x_scale = checked_magnitude(x, "x"), y_scale = checked_magnitude(y, "y");
  if (x_scale == 0 || y_scale == 0) return 0;
  double xy = 0, xx = 0, yy = 0;
  for (index_t i = 0; i < x.extent(0); ++i) {
    double const a = static_cast<double>(static_cast<accumulator_t<T>>(x(i))) / x_scale;
    double const b = static_cast<double>(static_cast<accumulator_t<T>>(y(i))) / y_scale;
    xy += a * b;
    xx += a * a;
    yy += b * b;
  }
  return clamped_cosine(xy, std::sqrt(xx), std::sqrt(yy));
}

// Squared norms within these bounds lost nothing to underflow or overflow in the accumulator type.
template <class T>
[[nodiscard]] constexpr bool safe_square(double square) {
  constexpr double limit = std::is_same_v<T, double> ? 1e280 : 1e28;
  return square > 1 / limit && square < limit;
}

template <class B, class T, space Space>
[[nodiscard]] double cosine(B const& backend, vector_view<T const, Space> x, vector_view<T const, Space> y) {
  if constexpr (requires { backend.cosine_similarity(x, y); }) {
    return static_cast<double>(backend.cosine_similarity(x, y));
  } else if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double>) {
    double const xx = backend.dot(x, x), yy = backend.dot(y, y);
    if (safe_square<T>(xx) && safe_square<T>(yy))
      return clamped_cosine(backend.dot(x, y), std::sqrt(xx), std::sqrt(yy));
    if constexpr (Space == space::host) return scaled_cosine(x, y);
    if (xx == 0 || yy == 0) return 0;
    throw numeric_error("cosine_similarity: expected squared norms within 1e-28 .. 1e28 on this device");
  } else {
    static_assert(Space == space::host, "16-bit vectors on a device need a backend with the member cosine_similarity");
    return scaled_cosine(x, y);
  }
}

}  // namespace detail

/// The cosine of the angle between two vectors, in [-1, 1]:
///
///     cos(x, y) = sum_i x_i y_i / (|x| |y|),   0 when either is zero
///
/// x, y: [n], of one scalar type. Float and double go through the backend's `dot`; 16- and 8-bit host vectors are added
/// in double. Cost 3 dots. Deterministic. On a device it synchronises, and a norm below 1e-14 may count as zero.
/// Throws `error` when lengths differ, `numeric_error` (with the index) on NaN or infinity.
/// A member `cosine_similarity(x, y)` of the backend takes over.
template <tensor_backend B, vector_like X, vector_like Y>
[[nodiscard]] double cosine_similarity(B const& backend, X&& x, Y&& y) {
  auto const a = as_const_vector(x);
  auto const b = as_const_vector(y);
  static_assert(reaches<B, decltype(a)> && reaches<B, decltype(b)>,
                "cosine_similarity: a vector lives in a memory space that this tensor_backend cannot reach");
  static_assert(std::is_same_v<decltype(a), decltype(b)>, "cosine_similarity: x and y need one scalar type");
  expects_equal(b.extent(0), a.extent(0), "cosine_similarity", "length of y");
  return detail::cosine(backend, a, b);
}

/// The same on `default_backend` of the vectors' memory space: include slimtrim/backend/eigen.hpp for host memory.
template <vector_like X, vector_like Y>
[[nodiscard]] double cosine_similarity(X&& x, Y&& y) {
  using view = decltype(as_const_vector(x));
  return cosine_similarity(default_backend<view::memory>{}, x, y);
}

/// out_i = cos(X_i, Y_i) for each row, 0 where either row is zero.
///
/// X, Y: [n, m]; out: [n], of the same scalar type as X. Rows are spread over the backend's executor in pieces of fixed
/// shape. Errors as `cosine_similarity`. A member `row_cosines(X, Y, out)` of the backend takes over (and is required
/// in device memory).
template <tensor_backend B, matrix_like X, matrix_like Y, vector_like Out>
void row_cosines(B const& backend, X&& x, Y&& y, Out&& out) {
  auto const a = as_const_matrix(x);
  auto const b = as_const_matrix(y);
  auto const result = as_vector(out);
  static_assert(reaches<B, decltype(a)> && reaches<B, decltype(b)> && reaches<B, decltype(result)>,
                "row_cosines: an operand lives in a memory space that this tensor_backend cannot reach");
  static_assert(std::is_same_v<decltype(a), decltype(b)>, "row_cosines: X and Y need one scalar type");
  expects_equal(b.extent(0), a.extent(0), "row_cosines", "rows of Y");
  expects_equal(b.extent(1), a.extent(1), "row_cosines", "columns of Y");
  expects_equal(result.extent(0), a.extent(0), "row_cosines", "length of out");
  if constexpr (requires { backend.row_cosines(a, b, result); }) {
    backend.row_cosines(a, b, result);
  } else {
    static_assert(B::memory == space::host, "row_cosines: this device backend lacks the member row_cosines");
    using value = typename decltype(a)::value_type;
    using result_value = typename decltype(result)::value_type;
    constexpr index_t rows_a_piece = 64;
    parallel_for(backend.run_on(), ceil_div(a.extent(0), rows_a_piece), [&](index_t piece) {
      index_t const end = piece * rows_a_piece + rows_a_piece;
      index_t const last = end < a.extent(0) ? end : a.extent(0);
      for (index_t i = piece * rows_a_piece; i < last; ++i)
        result(i) = static_cast<result_value>(detail::cosine<B, value, space::host>(backend, row(a, i), row(b, i)));
    });
  }
}

/// The same on `default_backend`.
template <matrix_like X, matrix_like Y, vector_like Out>
requires(!tensor_backend<std::remove_cvref_t<X>>) void row_cosines(X&& x, Y&& y, Out&& out) {
  using view = decltype(as_const_matrix(x));
  row_cosines(default_backend<view::memory>{}, x, y, out);
}

/// (1/n) sum_i cos(X_i, Y_i): the similarity of a layer's input and output over n tokens, in [-1, 1].
///
/// arXiv 2406.02500 eq. 9 with X = x' and Y = x' + MoE(norm(x')). X, Y: [n, m] in host memory, n >= 1. The mean is
/// formed in double, in row order. Allocates n values. Errors as `cosine_similarity`; throws `error` when n = 0.
template <host_backend B, matrix_like X, matrix_like Y>
[[nodiscard]] double mean_row_cosine(B const& backend, X&& x, Y&& y) {
  auto const a = as_const_matrix(x);
  using value = typename decltype(a)::value_type;
  using result_value = std::conditional_t<std::is_same_v<value, double>, double, float>;
  expects(a.extent(0) > 0, "mean_row_cosine", "expected at least one row");
  auto const count = static_cast<std::size_t>(a.extent(0));
  std::unique_ptr<result_value[]> const cosines(new result_value[count]);
  row_cosines(backend, x, y, vector_view<result_value>(cosines.get(), a.extent(0)));
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i) sum += static_cast<double>(cosines[i]);
  return sum / static_cast<double>(count);
}

/// The same on `default_backend`.
template <matrix_like X, matrix_like Y>
[[nodiscard]] double mean_row_cosine(X&& x, Y&& y) {
  using view = decltype(as_const_matrix(x));
  return mean_row_cosine(default_backend<view::memory>{}, x, y);
}

}  // namespace v0
}  // namespace slimtrim
