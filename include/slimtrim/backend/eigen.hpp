// The host default: Eigen's kernels inside tiles of ours.
//
// Eigen runs single-threaded on one tile at a time. Tile shapes are constants and the inner dimension is cut into
// panels of `depth` added in order, below the depth at which Eigen would cut it itself, so results do not depend on the
// number of threads or on the cache sizes that Eigen detects.
#pragma once

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

namespace detail {

template <class T>
using eigen_row_major = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// Eigen's products take the fast path only for a unit inner stride known at compile time.
template <class T>
using eigen_rows_map = Eigen::Map<eigen_row_major<T>, 0, Eigen::OuterStride<>>;
template <class T>
using eigen_const_rows_map = Eigen::Map<eigen_row_major<T> const, 0, Eigen::OuterStride<>>;
template <class T>
using eigen_const_columns_map =
    Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor> const, 0, Eigen::OuterStride<>>;

// Whether rows of x are unit-stride, apart and in order: what an Eigen map can express. Broadcast (stride 0), reversed
// and overlapping rows are not.
template <class T>
[[nodiscard]] constexpr bool rows_mappable(matrix_view<T> x) {
  return (x.extent(1) <= 1 || x.stride(1) == 1) && (x.extent(0) <= 1 || x.stride(0) >= x.extent(1));
}

// The distance between rows for a mappable x; of a single row it is never used, but Eigen wants it sensible.
template <class T>
[[nodiscard]] Eigen::OuterStride<> row_distance(matrix_view<T> x) {
  return Eigen::OuterStride<>(x.extent(0) <= 1 ? std::max<index_t>(x.extent(1), 1) : x.stride(0));
}

// Calls `use` with an Eigen map of x whose inner stride is 1, copying into `scratch` only when x has none.
template <class T, class Use>
void with_eigen_map(matrix_view<T const> x, buffer<T>& scratch, Use&& use) {
  index_t const n = x.extent(0), m = x.extent(1);
  if (rows_mappable(x)) {
    use(eigen_const_rows_map<T>(x.data, n, m, row_distance(x)));
  } else if (rows_mappable(transposed(x))) {
    use(eigen_const_columns_map<T>(x.data, n, m, row_distance(transposed(x))));
  } else {
    if (scratch.size() < static_cast<std::size_t>(n * m)) scratch = buffer<T>(n * m);
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < m; ++j) scratch[i * m + j] = x(i, j);
    use(eigen_const_rows_map<T>(scratch.data(), n, m, Eigen::OuterStride<>(m)));
  }
}

}  // namespace detail

/// Eigen on host memory, pieces spread over an executor of the caller's choice (none: the calling thread).
/// Accumulates in accumulator_t within a panel of `depth` and adds panels in order. Deterministic for any executor.
class eigen_backend {
 public:
  static constexpr space memory = space::host;
  static constexpr index_t tile_rows = 192;
  static constexpr index_t tile_columns = 256;
  static constexpr index_t depth = 256;

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
    if (C.stride(1) != 1 && C.stride(0) == 1) {
      gemm(alpha, transposed(B), transposed(A), beta, transposed(C));
      return;
    }
    index_t const tiles_down = ceil_div(C.extent(0), tile_rows);
    index_t const tiles_across = ceil_div(C.extent(1), tile_columns);
    parallel_for(executor_, tiles_down * tiles_across, [&](index_t tile) {
      index_t const i = tile / tiles_across * tile_rows, j = tile % tiles_across * tile_columns;
      index_t const n = std::min(tile_rows, C.extent(0) - i), m = std::min(tile_columns, C.extent(1) - j);
      gemm_tile(alpha, rows(A, i, n), columns(B, j, m), beta, columns(rows(C, i, n), j, m));
    });
  }

  template <class T>
  void gram_update(T alpha, matrix_view<T const> X, matrix_view<T> H) const {
    index_t const m = H.extent(0);
    index_t const tiles = ceil_div(m, tile_columns);
    parallel_for(executor_, tiles * (tiles + 1) / 2, [&](index_t piece) {
      index_t down = 0, across = piece;
      while (across > down) across -= ++down;
      index_t const i = down * tile_columns, j = across * tile_columns;
      index_t const n = std::min(tile_columns, m - i), w = std::min(tile_columns, m - j);
      detail::eigen_row_major<T> sum = detail::eigen_row_major<T>::Zero(n, w);
      auto tile = matrix_view<T>(sum.data(), n, w);
      gemm_tile(alpha, transposed(columns(X, i, n)), columns(X, j, w), T{0}, tile);
      for (index_t a = 0; a < n; ++a)
        for (index_t b = 0; b < (i == j ? a + 1 : w); ++b) {
          T const value = H(i + a, j + b) + tile(a, b);
          H(i + a, j + b) = value;
          H(j + b, i + a) = value;
        }
    });
  }

  /// As reference_backend::inverse_factor, blocked: reversed Cholesky by block columns from the last to the first,
  /// then the blocked inverse of the triangle. Factorises in double.
  template <class T>
  [[nodiscard]] bool inverse_factor(matrix_view<T const> H, matrix_view<T> R) const {
    index_t const m = H.extent(0);
    tensor<double, 2> factor(m, m);
    auto U = factor.view();
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < m; ++j) U(i, j) = i <= j ? static_cast<double>(H(i, j)) : 0.0;
    if (!reversed_cholesky(U)) return false;
    invert_upper(U);
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

  // One tile of C on the calling thread. C has unit column stride or is gathered through a temporary.
  template <class T>
  static void gemm_tile(T alpha, matrix_view<T const> A, matrix_view<T const> B, T beta, matrix_view<T> C) {
    index_t const n = C.extent(0), m = C.extent(1), inner = A.extent(1);
    if (n == 0 || m == 0) return;
    detail::eigen_row_major<T> gathered;
    bool const direct = detail::rows_mappable(C);
    if (!direct) {
      gathered.resize(n, m);
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < m; ++j) gathered(i, j) = beta == T{0} ? T{0} : C(i, j);
    }
    detail::eigen_rows_map<T> result(direct ? C.data : gathered.data(), n, m,
                                     direct ? detail::row_distance(C) : Eigen::OuterStride<>(m));
    if (beta == T{0}) {
      result.setZero();
    } else if (beta != T{1}) {
      result *= beta;
    }
    buffer<T> left, right;
    for (index_t first = 0; first < inner; first += depth) {
      index_t const count = std::min(depth, inner - first);
      detail::with_eigen_map<T>(columns(A, first, count), left, [&](auto const& a) {
        detail::with_eigen_map<T>(rows(B, first, count), right,
                                  [&](auto const& b) { result.noalias() += alpha * (a * b); });
      });
    }
    if (!direct)
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < m; ++j) C(i, j) = gathered(i, j);
  }

  static constexpr index_t factor_block = 64;

  // U (upper triangle of H on entry) becomes the upper factor of H = U Uᵀ. The lower triangle is not touched.
  bool reversed_cholesky(matrix_view<double> U) const {
    index_t const m = U.extent(0);
    for (index_t end = m; end > 0;) {
      index_t const begin = (end - 1) / factor_block * factor_block;
      index_t const width = end - begin;
      // What the columns behind this block take away from it and from everything above it.
      if (end < m) {
        auto const behind = as_const(columns(U, end, m - end));
        constexpr index_t strip = 128;
        parallel_for(executor_, ceil_div(end, strip), [&](index_t piece) {
          index_t const i = piece * strip, n = std::min(strip, end - i);
          gemm_tile(-1.0, rows(behind, i, n), transposed(rows(behind, begin, width)), 1.0,
                    columns(rows(U, i, n), begin, width));
        });
      }
      for (index_t j = end - 1; j >= begin; --j) {
        double pivot = U(j, j);
        for (index_t k = j + 1; k < end; ++k) pivot -= U(j, k) * U(j, k);
        if (!(pivot > 0) || !std::isfinite(pivot)) return false;
        U(j, j) = std::sqrt(pivot);
        for (index_t i = j - 1; i >= begin; --i) {
          double sum = U(i, j);
          for (index_t k = j + 1; k < end; ++k) sum -= U(i, k) * U(j, k);
          U(i, j) = sum / U(j, j);
        }
      }
      // The lower part of the diagonal block took the update too; it is not part of the factor.
      for (index_t i = begin; i < end; ++i)
        for (index_t j = begin; j < i; ++j) U(i, j) = 0;
      // Rows above solve X D^T = S with D the diagonal block; each row is independent.
      constexpr index_t strip = 64;
      parallel_for(executor_, ceil_div(begin, strip), [&](index_t piece) {
        index_t const last = std::min(begin, (piece + 1) * strip);
        for (index_t i = piece * strip; i < last; ++i)
          for (index_t j = end - 1; j >= begin; --j) {
            double sum = U(i, j);
            for (index_t k = j + 1; k < end; ++k) sum -= U(i, k) * U(j, k);
            U(i, j) = sum / U(j, j);
          }
      });
      end = begin;
    }
    return true;
  }

  // U becomes U⁻¹, by block rows from the last to the first: (U⁻¹)_bb = D⁻¹, (U⁻¹)_b,right = -D⁻¹ U_b,right (U⁻¹)_right.
  void invert_upper(matrix_view<double> U) const {
    index_t const m = U.extent(0);
    tensor<double, 2> product(std::min(factor_block, m), m);
    for (index_t end = m; end > 0;) {
      index_t const begin = (end - 1) / factor_block * factor_block;
      index_t const width = end - begin;
      auto D = columns(rows(U, begin, width), begin, width);
      double inverse_diagonal[factor_block];
      for (index_t j = 0; j < width; ++j) {
        double solved[factor_block];
        for (index_t i = j; i >= 0; --i) {
          double sum = i == j ? 1.0 : 0.0;
          for (index_t k = i + 1; k <= j; ++k) sum -= D(i, k) * solved[k];
          solved[i] = sum / D(i, i);
        }
        // Later columns still need D itself, so the inverse waits in the unused lower triangle, transposed.
        for (index_t i = 0; i < j; ++i) D(j, i) = solved[i];
        inverse_diagonal[j] = solved[j];
      }
      for (index_t j = 0; j < width; ++j) {
        for (index_t i = 0; i < j; ++i) {
          D(i, j) = D(j, i);
          D(j, i) = 0;
        }
        D(j, j) = inverse_diagonal[j];
      }
      if (end < m) {
        auto right = columns(rows(U, begin, width), end, m - end);
        auto temporary = columns(rows(product.view(), 0, width), end, m - end);
        constexpr index_t strip = 128;
        parallel_for(executor_, ceil_div(m - end, strip), [&](index_t piece) {
          index_t const j = piece * strip, w = std::min(strip, m - end - j);
          // Column strip j of U_right⁻¹ has no rows below j + w.
          auto const known = as_const(columns(rows(U, end, j + w), end + j, w));
          gemm_tile(1.0, as_const(columns(right, 0, j + w)), known, 0.0, columns(temporary, j, w));
        });
        parallel_for(executor_, ceil_div(m - end, strip), [&](index_t piece) {
          index_t const j = piece * strip, w = std::min(strip, m - end - j);
          gemm_tile(-1.0, as_const(D), as_const(columns(temporary, j, w)), 0.0, columns(right, j, w));
        });
      }
      end = begin;
    }
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
