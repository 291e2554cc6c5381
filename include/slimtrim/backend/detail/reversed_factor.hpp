// The reversed Cholesky factor H = U Uᵀ and the inverse of a triangle, by recursion on halves, so that nearly all
// operations are products of large blocks. Part of backend/eigen.hpp; in double, on contiguous rows.
#pragma once

#include <slimtrim/backend/detail/eigen_tile.hpp>
#include <slimtrim/backend/detail/tiled_product.hpp>
#include <slimtrim/core/executor.hpp>

#include <algorithm>
#include <cmath>

namespace slimtrim {
inline namespace v0 {

namespace detail {

/// All members work on the upper triangle in place; the lower one is never read, and holds anything afterwards.
class reversed_factor {
 public:
  explicit reversed_factor(executor* run_on) : run_on_(run_on) {}

  /// U (upper triangle of H on entry) becomes the upper factor of H = U Uᵀ; false when a pivot is not positive.
  [[nodiscard]] bool factorise(matrix_view<double> U) const {
    index_t const m = U.extent(0);
    if (m <= leaf) return factorise_leaf(U);
    index_t const top = half(m), bottom = m - top;
    auto const corner = columns(rows(U, top, bottom), top, bottom), right = columns(rows(U, 0, top), top, bottom);
    auto const rest = columns(rows(U, 0, top), 0, top);
    if (!factorise(corner)) return false;
    solve_right_transposed(as_const(corner), right);
    // The rest loses right rightᵀ, which is symmetric: its upper triangle is the lower one of the transpose.
    tiled_lower_triangle(run_on_, -1.0, as_const(right), transposed(as_const(right)), transposed(rest),
                         [](index_t, index_t, index_t, index_t) {});
    return factorise(rest);
  }

  /// U becomes U⁻¹: [A B; 0 C]⁻¹ = [A⁻¹, -A⁻¹ B C⁻¹; 0, C⁻¹].
  void invert(matrix_view<double> U) const {
    index_t const m = U.extent(0);
    if (m <= leaf) return invert_leaf(U);
    index_t const top = half(m), bottom = m - top;
    auto const corner = columns(rows(U, top, bottom), top, bottom), right = columns(rows(U, 0, top), top, bottom);
    auto const rest = columns(rows(U, 0, top), 0, top);
    for (index_t i = 0; i < top; ++i)
      for (index_t j = 0; j < bottom; ++j) right(i, j) = -right(i, j);
    solve_left(as_const(rest), right);
    solve_right(as_const(corner), right);
    invert(rest);
    invert(corner);
  }

 private:
  static constexpr index_t leaf = 64;
  static constexpr index_t strip = 128;

  // The first half of m > leaf: a multiple of the leaf, and less than m.
  [[nodiscard]] static constexpr index_t half(index_t m) { return round_up(ceil_div(m, 2) - leaf / 2, leaf); }

  // X := X D⁻ᵀ.
  void solve_right_transposed(matrix_view<double const> D, matrix_view<double> X) const {
    index_t const m = D.extent(0);
    if (m <= leaf) {
      return by_row_strips(X, [&](auto x) {
        map(D).transpose().triangularView<Eigen::Lower>().solveInPlace<Eigen::OnTheRight>(x);
      });
    }
    index_t const top = half(m), bottom = m - top;
    auto const first = columns(X, 0, top), second = columns(X, top, bottom);
    solve_right_transposed(columns(rows(D, top, bottom), top, bottom), second);
    tiled_gemm(run_on_, -1.0, as_const(second), transposed(columns(rows(D, 0, top), top, bottom)), 1.0, first);
    solve_right_transposed(columns(rows(D, 0, top), 0, top), first);
  }

  // X := X D⁻¹.
  void solve_right(matrix_view<double const> D, matrix_view<double> X) const {
    index_t const m = D.extent(0);
    if (m <= leaf) {
      return by_row_strips(X, [&](auto x) { map(D).triangularView<Eigen::Upper>().solveInPlace<Eigen::OnTheRight>(x); });
    }
    index_t const top = half(m), bottom = m - top;
    auto const first = columns(X, 0, top), second = columns(X, top, bottom);
    solve_right(columns(rows(D, 0, top), 0, top), first);
    tiled_gemm(run_on_, -1.0, as_const(first), columns(rows(D, 0, top), top, bottom), 1.0, second);
    solve_right(columns(rows(D, top, bottom), top, bottom), second);
  }

  // X := D⁻¹ X.
  void solve_left(matrix_view<double const> D, matrix_view<double> X) const {
    index_t const m = D.extent(0);
    if (m <= leaf) {
      parallel_for(run_on_, ceil_div(X.extent(1), strip), [&](index_t piece) {
        index_t const j = piece * strip;
        auto x = eigen_rows(columns(X, j, std::min(strip, X.extent(1) - j)));
        map(D).triangularView<Eigen::Upper>().solveInPlace<Eigen::OnTheLeft>(x);
      });
      return;
    }
    index_t const top = half(m), bottom = m - top;
    auto const first = rows(X, 0, top), second = rows(X, top, bottom);
    solve_left(columns(rows(D, top, bottom), top, bottom), second);
    tiled_gemm(run_on_, -1.0, columns(rows(D, 0, top), top, bottom), as_const(second), 1.0, first);
    solve_left(columns(rows(D, 0, top), 0, top), first);
  }

  template <class Use>
  void by_row_strips(matrix_view<double> X, Use&& use) const {
    parallel_for(run_on_, ceil_div(X.extent(0), strip), [&](index_t piece) {
      index_t const i = piece * strip;
      use(eigen_rows(rows(X, i, std::min(strip, X.extent(0) - i))));
    });
  }

  [[nodiscard]] static eigen_const_rows_map<double> map(matrix_view<double const> x) {
    return eigen_const_rows_map<double>(x.data, x.extent(0), x.extent(1), row_distance(x));
  }

  // From the last column to the first; what a finished column takes from those before it is subtracted row by row,
  // so that the inner loop runs along rows and has no sum to carry.
  [[nodiscard]] static bool factorise_leaf(matrix_view<double> U) {
    index_t const m = U.extent(0);
    double finished[leaf];
    for (index_t j = m - 1; j >= 0; --j) {
      double const pivot = U(j, j);
      if (!(pivot > 0) || !std::isfinite(pivot)) return false;
      double const root = std::sqrt(pivot);
      U(j, j) = root;
      for (index_t i = 0; i < j; ++i) finished[i] = U(i, j) = U(i, j) / root;
      for (index_t i = 0; i < j; ++i) {
        double* const line = &U(i, 0);
        double const factor = finished[i];
        for (index_t k = i; k < j; ++k) line[k] -= factor * finished[k];
      }
    }
    return true;
  }

  // Row i of the inverse from those below it: (e_i - sum_{k > i} U_ik (U⁻¹)_k) / U_ii.
  static void invert_leaf(matrix_view<double> U) {
    index_t const m = U.extent(0);
    double sum[leaf];
    for (index_t i = m - 1; i >= 0; --i) {
      double const scale = 1 / U(i, i);
      for (index_t j = i; j < m; ++j) sum[j] = 0;
      for (index_t k = i + 1; k < m; ++k) {
        double const factor = U(i, k);
        double const* const line = &U(k, 0);
        for (index_t j = k; j < m; ++j) sum[j] += factor * line[j];
      }
      U(i, i) = scale;
      for (index_t j = i + 1; j < m; ++j) U(i, j) = -scale * sum[j];
    }
  }

  executor* run_on_;
};

}  // namespace detail

}  // namespace v0
}  // namespace slimtrim
