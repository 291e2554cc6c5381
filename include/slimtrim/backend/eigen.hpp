// The host default: Eigen's kernels inside tiles of ours.
//
// Eigen runs single-threaded on one tile at a time. Tile shapes are constants and the inner dimension is cut into
// panels of constant depth added in order, so results do not depend on the number of threads or on the cache sizes that
// Eigen detects.
#pragma once

#include <slimtrim/backend/detail/eigen_tile.hpp>
#include <slimtrim/backend/detail/reversed_factor.hpp>
#include <slimtrim/backend/detail/tiled_product.hpp>
#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Eigen on host memory, pieces spread over an executor of the caller's choice (none: the calling thread).
/// Accumulates in accumulator_t within a panel of `detail::panel_depth` and adds panels in order. Deterministic for any
/// executor.
class eigen_backend {
 public:
  static constexpr space memory = space::host;

  eigen_backend() = default;
  explicit eigen_backend(executor& pieces_on) : executor_(&pieces_on) {}

  [[nodiscard]] executor* run_on() const { return executor_; }

  template <class T>
  [[nodiscard]] double dot(vector_view<T const> x, vector_view<T const> y) const {
    constexpr index_t panel = 4096;
    double sum = 0;
    bool const contiguous = x.stride(0) == 1 && y.stride(0) == 1;
    for (index_t first = 0; first < x.extent(0); first += panel) {
      index_t const count = std::min(panel, x.extent(0) - first);
      // A stride known at compile time is what lets Eigen use vector instructions.
      if (contiguous) {
        using vector = Eigen::Matrix<T, Eigen::Dynamic, 1>;
        sum += static_cast<double>(Eigen::Map<vector const>(x.data + first, count)
                                       .dot(Eigen::Map<vector const>(y.data + first, count)));
        continue;
      }
      sum += static_cast<double>(vector_map(slice(x, 0, first, count)).dot(vector_map(slice(y, 0, first, count))));
    }
    return sum;
  }

  template <class T>
  void row_dots(matrix_view<T const> X, matrix_view<T const> Y, vector_view<T> out) const {
    constexpr index_t rows_a_piece = 64;
    parallel_for(executor_, ceil_div(X.extent(0), rows_a_piece), [&](index_t piece) {
      index_t const last = std::min(X.extent(0), (piece + 1) * rows_a_piece);
      for (index_t i = piece * rows_a_piece; i < last; ++i) out(i) = static_cast<T>(dot<T>(row(X, i), row(Y, i)));
    });
  }

  template <class T>
  void column_square_sums(matrix_view<T const> X, vector_view<T> out) const {
    constexpr index_t columns_a_piece = 512;
    parallel_for(executor_, ceil_div(X.extent(1), columns_a_piece), [&](index_t piece) {
      index_t const first = piece * columns_a_piece;
      index_t const count = std::min(columns_a_piece, X.extent(1) - first);
      double sums[columns_a_piece] = {};
      for (index_t i = 0; i < X.extent(0); ++i)
        for (index_t j = 0; j < count; ++j) {
          double const value = static_cast<double>(X(i, first + j));
          sums[j] += value * value;
        }
      for (index_t j = 0; j < count; ++j) out(first + j) = static_cast<T>(sums[j]);
    });
  }

  template <class T>
  void gemm(T alpha, matrix_view<T const> A, matrix_view<T const> B, T beta, matrix_view<T> C) const {
    detail::tiled_gemm(executor_, alpha, A, B, beta, C);
  }

  template <class T>
  void gram_update(T alpha, matrix_view<T const> X, matrix_view<T> H) const {
    detail::tiled_gram_update(executor_, alpha, X, H);
  }

  /// As reference_backend::inverse_factor, by recursion on halves, in double. Scratch: m² doubles.
  template <class T>
  [[nodiscard]] bool inverse_factor(matrix_view<T const> H, matrix_view<T> R) const {
    index_t const m = H.extent(0);
    tensor<double, 2> factor(m, m);
    auto U = factor.view();
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < m; ++j) U(i, j) = i <= j ? static_cast<double>(H(i, j)) : 0.0;
    detail::reversed_factor const factorisation(executor_);
    if (!factorisation.factorise(U)) return false;
    factorisation.invert(U);
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < m; ++j) R(i, j) = i <= j ? static_cast<T>(U(i, j)) : T{0};
    return true;
  }

  /// H⁻¹ B = Rᵀ (R B) with R from the reversed factorisation, in double.
  template <class T>
  [[nodiscard]] bool solve_positive_definite(matrix_view<T> H, matrix_view<T> B) const {
    index_t const m = H.extent(0);
    tensor<double, 2> factor(m, m), right(m, B.extent(1)), middle(m, B.extent(1));
    tensor<double, 2> widened(m, m);
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < m; ++j) widened(i, j) = static_cast<double>(H(i, j));
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < B.extent(1); ++j) right(i, j) = static_cast<double>(B(i, j));
    if (!inverse_factor(as_const(widened.view()), factor.view())) return false;
    auto const R = as_const(factor.view());
    gemm(1.0, R, as_const(right.view()), 0.0, middle.view());
    gemm(1.0, transposed(R), as_const(middle.view()), 0.0, right.view());
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < B.extent(1); ++j) B(i, j) = static_cast<T>(right(i, j));
    return true;
  }

  template <class T>
  void top_k(matrix_view<T const> X, matrix_view<std::int32_t> indices) const {
    index_t const k = indices.extent(1);
    constexpr index_t rows_a_piece = 64;
    parallel_for(executor_, ceil_div(X.extent(0), rows_a_piece), [&](index_t piece) {
      std::vector<std::int32_t> order(static_cast<std::size_t>(X.extent(1)));
      index_t const last = std::min(X.extent(0), (piece + 1) * rows_a_piece);
      for (index_t i = piece * rows_a_piece; i < last; ++i) {
        std::iota(order.begin(), order.end(), 0);
        auto const before = [&](std::int32_t a, std::int32_t b) {
          T const x = X(i, a), y = X(i, b);
          if (std::isnan(x) || std::isnan(y)) return std::isnan(x) == std::isnan(y) ? a < b : std::isnan(y);
          return x != y ? x > y : a < b;
        };
        std::partial_sort(order.begin(), order.begin() + k, order.end(), before);
        for (index_t slot = 0; slot < k; ++slot) indices(i, slot) = order[static_cast<std::size_t>(slot)];
      }
    });
  }

 private:
  template <class T>
  static auto vector_map(vector_view<T const> x) {
    return Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, 1> const, 0, Eigen::InnerStride<>>(
        x.data, x.extent(0), Eigen::InnerStride<>(x.stride(0)));
  }

  executor* executor_ = nullptr;
};

template <>
struct default_backend<space::host> : eigen_backend {
  using eigen_backend::eigen_backend;
};

static_assert(host_backend<eigen_backend>);

// A build that links the instances of compiled/eigen.cpp says so, and saves itself Eigen's kernels in every other file.
#if defined(SLIMTRIM_COMPILED)
extern template double eigen_backend::dot<float>(vector_view<float const>, vector_view<float const>) const;
extern template void eigen_backend::gemm<float>(float, matrix_view<float const>, matrix_view<float const>, float,
                                         matrix_view<float>) const;
extern template void eigen_backend::gram_update<float>(float, matrix_view<float const>, matrix_view<float>) const;
extern template bool eigen_backend::inverse_factor<float>(matrix_view<float const>, matrix_view<float>) const;
extern template bool eigen_backend::solve_positive_definite<float>(matrix_view<float>, matrix_view<float>) const;
extern template double eigen_backend::dot<double>(vector_view<double const>, vector_view<double const>) const;
extern template void eigen_backend::gemm<double>(double, matrix_view<double const>, matrix_view<double const>, double,
                                         matrix_view<double>) const;
extern template void eigen_backend::gram_update<double>(double, matrix_view<double const>, matrix_view<double>) const;
extern template bool eigen_backend::inverse_factor<double>(matrix_view<double const>, matrix_view<double>) const;
extern template bool eigen_backend::solve_positive_definite<double>(matrix_view<double>, matrix_view<double>) const;
#endif

}  // namespace v0
}  // namespace slimtrim
