// xtensor as a backend: its expressions and reductions, and xtensor-blas for products and factorisations.
//
// For engines that already carry xtensor, and as an independent third opinion in the tests. Operands are adapted in
// place with their strides; BLAS is given contiguous operands in place and an evaluated copy of any other.
//
// Nothing here is parallel by itself. The linked BLAS may use threads of its own, over which a header has no say
// without touching global state: results repeat from run to run, but are the same for another number of BLAS threads
// only where that BLAS says so. Run it single-threaded (OPENBLAS_NUM_THREADS=1) when bytes must not depend on the
// machine, or use eigen_backend, which guarantees it.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <xtensor-blas/xlinalg.hpp>
#include <xtensor/xadapt.hpp>
#include <xtensor/xbuilder.hpp>
#include <xtensor/xmanipulation.hpp>
#include <xtensor/xmath.hpp>
#include <xtensor/xnoalias.hpp>
#include <xtensor/xtensor.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

// An xtensor adaptor on the elements of a view, with its strides. xtensor wants a stride of 0 where the extent is 1,
// and keeps a reference to a pointer that is an lvalue.
template <class T, int Rank>
auto adapted(tensor_view<T, Rank> x) {
  std::array<std::size_t, std::size_t{Rank}> shape{};
  std::array<std::ptrdiff_t, std::size_t{Rank}> strides{};
  for (int d = 0; d < Rank; ++d) {
    auto const at = static_cast<std::size_t>(d);
    shape[at] = static_cast<std::size_t>(x.extent(d));
    strides[at] = x.extent(d) == 1 ? 0 : x.stride(d);
  }
  return xt::adapt(x.data + 0, static_cast<std::size_t>(x.size()), xt::no_ownership(), shape, strides);
}

// Calls `use` with x in a layout that BLAS can name: in place when it is contiguous in either order, else a copy.
template <class T, class Use>
void with_blas_operand(matrix_view<T const> x, bool copy, Use&& use) {
  std::array<std::size_t, 2> const shape{static_cast<std::size_t>(x.extent(0)), static_cast<std::size_t>(x.extent(1))};
  auto const count = static_cast<std::size_t>(x.size());
  if (!copy && x.contiguous()) {
    use(xt::adapt<xt::layout_type::row_major>(x.data + 0, count, xt::no_ownership(), shape));
  } else if (!copy && transposed(x).contiguous()) {
    use(xt::adapt<xt::layout_type::column_major>(x.data + 0, count, xt::no_ownership(), shape));
  } else {
    use(xt::xtensor<T, 2, xt::layout_type::row_major>(adapted(x)));
  }
}

inline void expects_blas_extent(index_t extent, char const* where) {
  expects(extent <= std::numeric_limits<xt::blas_index_t>::max(), where, "an extent is larger than BLAS can count");
}

}  // namespace detail

/// xtensor on host memory. Reductions are formed in double; products in the element type, by BLAS; factorisations in
/// double, by LAPACK. Scratch: the size of the result of a product; four m x m matrices for a factorisation.
struct xtensor_backend {
  static constexpr space memory = space::host;

  [[nodiscard]] executor* run_on() const { return nullptr; }

  template <class T>
  [[nodiscard]] double dot(vector_view<T const> x, vector_view<T const> y) const {
    return xt::sum(xt::cast<double>(detail::adapted(x)) * xt::cast<double>(detail::adapted(y)))();
  }

  template <class T>
  void row_dots(matrix_view<T const> X, matrix_view<T const> Y, vector_view<T> out) const {
    if (out.empty()) return;
    auto products = xt::cast<double>(detail::adapted(X)) * xt::cast<double>(detail::adapted(Y));
    xt::noalias(detail::adapted(out)) = xt::cast<T>(xt::sum(products, {1}));
  }

  template <class T>
  void column_square_sums(matrix_view<T const> X, vector_view<T> out) const {
    if (out.empty()) return;
    xt::noalias(detail::adapted(out)) = xt::cast<T>(xt::sum(xt::square(xt::cast<double>(detail::adapted(X))), {0}));
  }

  template <class T>
  void gemm(T alpha, matrix_view<T const> A, matrix_view<T const> B, T beta, matrix_view<T> C) const {
    if (C.empty()) return;
    for (index_t extent : {C.extent(0), C.extent(1), A.extent(1)}) detail::expects_blas_extent(extent, "gemm");
    if (A.extent(1) == 0) return add_product(T{0}, xt::zeros<T>(detail::adapted(C).shape()), beta, C);
    // xt::linalg::dot takes operands at one address for a matrix and its transpose; make sure that they are.
    bool const misleading = A.data == B.data && A.extent(0) != B.extent(1);
    detail::with_blas_operand(A, false, [&](auto const& a) {
      detail::with_blas_operand(B, misleading, [&](auto const& b) {
        add_product(alpha, xt::linalg::dot(a, b), beta, C);
      });
    });
  }

  /// dot(Xᵀ, X) is a rank-k update in xtensor-blas: half the operations, exactly symmetric.
  template <class T>
  void gram_update(T alpha, matrix_view<T const> X, matrix_view<T> H) const {
    if (H.empty() || X.extent(0) == 0) return;
    for (index_t extent : {X.extent(0), X.extent(1)}) detail::expects_blas_extent(extent, "gram_update");
    detail::with_blas_operand(X, false, [&](auto const& x) {
      add_product(alpha, xt::linalg::dot(xt::transpose(x), x), T{1}, H);
    });
  }

  /// With J the reversal of rows and columns: J H J = L Lᵀ, and R = J L⁻¹ J.
  template <class T>
  [[nodiscard]] bool inverse_factor(matrix_view<T const> H, matrix_view<T> R) const {
    if (H.empty()) return true;
    detail::expects_blas_extent(H.extent(0), "inverse_factor");
    columns_first const reversed = xt::cast<double>(xt::flip(xt::flip(detail::adapted(H), 0), 1));
    columns_first L;
    if (!cholesky(reversed, L)) return false;
    columns_first const inverse = xt::linalg::inv(L);
    xt::noalias(detail::adapted(R)) = xt::cast<T>(xt::triu(xt::flip(xt::flip(inverse, 0), 1)));
    return true;
  }

  template <class T>
  [[nodiscard]] bool solve_positive_definite(matrix_view<T> H, matrix_view<T> B) const {
    if (H.empty()) return true;
    for (index_t extent : {H.extent(0), B.extent(1)}) detail::expects_blas_extent(extent, "solve_positive_definite");
    columns_first L;
    if (!cholesky(xt::cast<double>(detail::adapted(H)), L)) return false;
    if (B.empty()) return true;
    columns_first const right = xt::cast<double>(detail::adapted(B));
    // xt::linalg::solve_cholesky takes one right-hand side at a time, `solve` takes all.
    columns_first const middle = xt::linalg::solve(L, right);
    columns_first const upper = xt::transpose(L);
    xt::noalias(detail::adapted(B)) = xt::cast<T>(xt::linalg::solve(upper, middle));
    return true;
  }

  template <class T>
  void top_k(matrix_view<T const> X, matrix_view<std::int32_t> indices) const {
    auto const values = detail::adapted(X);
    auto chosen = detail::adapted(indices);
    std::vector<std::int32_t> order(static_cast<std::size_t>(X.extent(1)));
    for (std::size_t i = 0; i < values.shape()[0]; ++i) {
      auto const before = [&](std::int32_t a, std::int32_t b) {
        T const x = values(i, static_cast<std::size_t>(a)), y = values(i, static_cast<std::size_t>(b));
        if (std::isnan(x) || std::isnan(y)) return std::isnan(x) == std::isnan(y) ? a < b : std::isnan(y);
        return x != y ? x > y : a < b;
      };
      std::iota(order.begin(), order.end(), 0);
      std::partial_sort(order.begin(), order.begin() + indices.extent(1), order.end(), before);
      for (std::size_t slot = 0; slot < chosen.shape()[1]; ++slot) chosen(i, slot) = order[slot];
    }
  }

 private:
  using columns_first = xt::xtensor<double, 2, xt::layout_type::column_major>;

  template <class T, class Product>
  static void add_product(T alpha, Product const& product, T beta, matrix_view<T> C) {
    auto result = detail::adapted(C);
    if (beta == T{0}) {
      xt::noalias(result) = alpha * product;
    } else {
      xt::noalias(result) = alpha * product + beta * result;
    }
  }

  // L of A = L Lᵀ from A's lower triangle; false when A is not positive definite. LAPACKs differ on NaN, so it is
  // looked for on the diagonal, where any that entered must show.
  template <class Expression>
  static bool cholesky(Expression const& A, columns_first& L) {
    try {
      L = xt::linalg::cholesky(A);
    } catch (std::runtime_error const&) {
      return false;
    }
    return xt::all(xt::isfinite(xt::diagonal(L))) && xt::all(xt::diagonal(L) > 0.0);
  }
};

static_assert(host_backend<xtensor_backend>);

}  // namespace v0
}  // namespace slimtrim
