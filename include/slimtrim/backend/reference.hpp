// The reference backend: plain loops in double precision. Its results are the semantics of record; every other
// backend is compared with it. Slow on purpose and single-threaded.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Plain loops over host memory, all sums in double, in index order. O(1) scratch except where a factor is formed.
struct reference_backend {
  static constexpr space memory = space::host;

  [[nodiscard]] executor* run_on() const { return nullptr; }

  template <class T>
  [[nodiscard]] double dot(vector_view<T const> x, vector_view<T const> y) const {
    double sum = 0;
    for (index_t i = 0; i < x.extent(0); ++i) sum += static_cast<double>(x(i)) * static_cast<double>(y(i));
    return sum;
  }

  template <class T>
  void row_dots(matrix_view<T const> X, matrix_view<T const> Y, vector_view<T> out) const {
    for (index_t i = 0; i < X.extent(0); ++i) out(i) = static_cast<T>(dot<T>(row(X, i), row(Y, i)));
  }

  template <class T>
  void column_square_sums(matrix_view<T const> X, vector_view<T> out) const {
    for (index_t j = 0; j < X.extent(1); ++j) out(j) = static_cast<T>(dot<T>(column(X, j), column(X, j)));
  }

  template <class T>
  void gemm(T alpha, matrix_view<T const> A, matrix_view<T const> B, T beta, matrix_view<T> C) const {
    for (index_t i = 0; i < C.extent(0); ++i)
      for (index_t j = 0; j < C.extent(1); ++j) {
        double value = static_cast<double>(alpha) * dot<T>(row(A, i), column(B, j));
        if (beta != T{0}) value += static_cast<double>(beta) * static_cast<double>(C(i, j));
        C(i, j) = static_cast<T>(value);
      }
  }

  template <class T>
  void gram_update(T alpha, matrix_view<T const> X, matrix_view<T> H) const {
    for (index_t i = 0; i < H.extent(0); ++i)
      for (index_t j = 0; j <= i; ++j) {
        double const update = static_cast<double>(alpha) * dot<T>(column(X, i), column(X, j));
        H(i, j) = static_cast<T>(static_cast<double>(H(i, j)) + update);
        H(j, i) = H(i, j);
      }
  }

  /// The reversed Cholesky factor H = U Uᵀ (U upper, from the last column to the first), then R = U⁻¹ by back
  /// substitution: 2/3 m³ operations instead of the 4/3 m³ of factor, inverse, factor. H⁻¹ = U⁻ᵀ U⁻¹ = Rᵀ R.
  template <class T>
  [[nodiscard]] bool inverse_factor(matrix_view<T const> H, matrix_view<T> R) const {
    index_t const m = H.extent(0);
    std::vector<double> factor(static_cast<std::size_t>(m * m), 0.0);
    auto U = matrix_view<double>(factor.data(), m, m);
    for (index_t j = m - 1; j >= 0; --j) {
      double pivot = static_cast<double>(H(j, j));
      for (index_t k = j + 1; k < m; ++k) pivot -= U(j, k) * U(j, k);
      if (!(pivot > 0) || !std::isfinite(pivot)) return false;
      U(j, j) = std::sqrt(pivot);
      for (index_t i = j - 1; i >= 0; --i) {
        double sum = static_cast<double>(H(i, j));
        for (index_t k = j + 1; k < m; ++k) sum -= U(i, k) * U(j, k);
        U(i, j) = sum / U(j, j);
      }
    }
    std::vector<double> solved(static_cast<std::size_t>(m));
    for (index_t j = 0; j < m; ++j) {
      for (index_t i = j; i >= 0; --i) {
        double sum = i == j ? 1.0 : 0.0;
        for (index_t k = i + 1; k <= j; ++k) sum -= U(i, k) * solved[static_cast<std::size_t>(k)];
        solved[static_cast<std::size_t>(i)] = sum / U(i, i);
      }
      for (index_t i = 0; i < m; ++i) R(i, j) = i <= j ? static_cast<T>(solved[static_cast<std::size_t>(i)]) : T{0};
    }
    return true;
  }

  /// H = L Lᵀ, then two triangular solves for each column of B.
  template <class T>
  [[nodiscard]] bool solve_positive_definite(matrix_view<T> H, matrix_view<T> B) const {
    index_t const m = H.extent(0);
    std::vector<double> factor(static_cast<std::size_t>(m * m), 0.0);
    auto L = matrix_view<double>(factor.data(), m, m);
    for (index_t j = 0; j < m; ++j) {
      double pivot = static_cast<double>(H(j, j));
      for (index_t k = 0; k < j; ++k) pivot -= L(j, k) * L(j, k);
      if (!(pivot > 0) || !std::isfinite(pivot)) return false;
      L(j, j) = std::sqrt(pivot);
      for (index_t i = j + 1; i < m; ++i) {
        double sum = static_cast<double>(H(i, j));
        for (index_t k = 0; k < j; ++k) sum -= L(i, k) * L(j, k);
        L(i, j) = sum / L(j, j);
      }
    }
    std::vector<double> x(static_cast<std::size_t>(m));
    auto at = [&](index_t i) -> double& { return x[static_cast<std::size_t>(i)]; };
    for (index_t c = 0; c < B.extent(1); ++c) {
      for (index_t i = 0; i < m; ++i) {
        double sum = static_cast<double>(B(i, c));
        for (index_t k = 0; k < i; ++k) sum -= L(i, k) * at(k);
        at(i) = sum / L(i, i);
      }
      for (index_t i = m - 1; i >= 0; --i) {
        double sum = at(i);
        for (index_t k = i + 1; k < m; ++k) sum -= L(k, i) * at(k);
        at(i) = sum / L(i, i);
      }
      for (index_t i = 0; i < m; ++i) B(i, c) = static_cast<T>(at(i));
    }
    return true;
  }

  template <class T>
  void top_k(matrix_view<T const> X, matrix_view<std::int32_t> indices) const {
    index_t const k = indices.extent(1);
    for (index_t i = 0; i < X.extent(0); ++i) {
      std::vector<bool> taken(static_cast<std::size_t>(X.extent(1)), false);
      for (index_t slot = 0; slot < k; ++slot) {
        index_t best = -1;
        for (index_t j = 0; j < X.extent(1); ++j) {
          if (taken[static_cast<std::size_t>(j)]) continue;
          if (best < 0 || X(i, j) > X(i, best) || (std::isnan(X(i, best)) && !std::isnan(X(i, j)))) best = j;
        }
        taken[static_cast<std::size_t>(best)] = true;
        indices(i, slot) = static_cast<std::int32_t>(best);
      }
    }
  }
};

static_assert(host_backend<reference_backend>);

}  // namespace v0
}  // namespace slimtrim
