// Eigen maps of views, and one tile of a product on the calling thread. Part of backend/eigen.hpp.
#pragma once

#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <Eigen/Core>

#include <algorithm>

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

template <class T>
[[nodiscard]] eigen_rows_map<T> eigen_rows(matrix_view<T> x) {
  return eigen_rows_map<T>(x.data, x.extent(0), x.extent(1), row_distance(x));
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

// The inner dimension of a product is cut into panels of this depth, added in order. It stays below the depth at which
// Eigen would cut a panel itself for a first-level cache of 32 KiB, so that results do not depend on detected caches.
template <class T>
inline constexpr index_t panel_depth = [] {
  using kernel = Eigen::internal::gebp_traits<T, T>;
  index_t const bytes = static_cast<index_t>(sizeof(T));
  index_t const limit = (32768 - kernel::mr * kernel::nr * bytes) / ((kernel::mr + kernel::nr) * bytes);
  return std::clamp<index_t>(limit / 64 * 64, 64, 256);
}();

// One tile of C = alpha A B + beta C on the calling thread. A C without a unit stride is gathered through a temporary.
template <class T>
void gemm_tile(T alpha, matrix_view<T const> A, matrix_view<T const> B, T beta, matrix_view<T> C) {
  index_t const n = C.extent(0), m = C.extent(1), inner = A.extent(1);
  if (n == 0 || m == 0) return;
  if (!rows_mappable(C) && rows_mappable(transposed(C))) {
    gemm_tile(alpha, transposed(B), transposed(A), beta, transposed(C));
    return;
  }
  tensor<T, 2> gathered;
  matrix_view<T> target = C;
  bool const direct = rows_mappable(C);
  if (!direct) {
    gathered = tensor<T, 2>(n, m);
    target = gathered.view();
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < m; ++j) target(i, j) = beta == T{0} ? T{0} : C(i, j);
  }
  auto result = eigen_rows(target);
  if (beta == T{0}) {
    result.setZero();
  } else if (beta != T{1}) {
    result *= beta;
  }
  buffer<T> left, right;
  for (index_t first = 0; first < inner; first += panel_depth<T>) {
    index_t const count = std::min(panel_depth<T>, inner - first);
    with_eigen_map<T>(columns(A, first, count), left, [&](auto const& a) {
      with_eigen_map<T>(rows(B, first, count), right, [&](auto const& b) { result.noalias() += alpha * (a * b); });
    });
  }
  if (!direct)
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < m; ++j) C(i, j) = target(i, j);
}

}  // namespace detail

}  // namespace v0
}  // namespace slimtrim
