// Factors and solutions of positive definite systems, in double, by cuSOLVER's Cholesky and cuBLAS' triangular solve.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/blas.cuh>

#include <type_traits>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// Column-major lower triangle of H, read from both ends reversed (`turned`) or as it is.
template <class T>
struct take_lower {
  device_matrix<T const> H;
  double* to;
  bool turned;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const {
    index_t const m = H.extent(0), last = m - 1;
    double const value = turned ? static_cast<double>(H(last - i, last - j)) : static_cast<double>(H(i, j));
    to[i + j * m] = i >= j ? value : 0.0;
  }
};

struct write_identity {
  double* to;
  index_t m;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { to[i + j * m] = i == j ? 1.0 : 0.0; }
};

template <class T>
struct give_turned_upper {
  double const* from;
  device_matrix<T> R;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const {
    index_t const m = R.extent(0), last = m - 1;
    R(i, j) = i <= j ? static_cast<T>(from[(last - i) + (last - j) * m]) : T{0};
  }
};

// Whether each pivot is positive and finite: whatever the library says about NaN, no such factor is used.
static __global__ void judge_pivots(double const* L, index_t m, int* verdict) {
  if (threadIdx.x == 0) verdict[1] = 0;
  sync_block();
  for (index_t i = threadIdx.x; i < m; i += blockDim.x) {
    double const pivot = L[i + i * m];
    if (!(pivot > 0) || !(pivot < 1e300)) verdict[1] = 1;
  }
}

// L Lᵀ of the m x m matrix in `L`, in place. Waits for the device.
inline bool cholesky(context& on, double* L, index_t m) {
  int const n = blas_size(m);
  int size = 0;
  check(cusolverDnDpotrf_bufferSize(on.solver(), CUBLAS_FILL_MODE_LOWER, n, L, n, &size), "cuda::cholesky");
  auto const work = on.scratch_for<double>(size);
  auto const verdict = on.scratch_for<int>(2);
  check(cusolverDnDpotrf(on.solver(), CUBLAS_FILL_MODE_LOWER, n, L, n, work.data(), size, verdict.data()), "cuda::cholesky");
  launch(on.stream(), {dim3(1), 1024, 0}, judge_pivots, L, m, verdict.data());
  int found[2] = {1, 1};
  copy_to_host(on.stream(), verdict.data(), 2, found);
  return found[0] == 0 && found[1] == 0;
}

inline void solve_lower(context& on, cublasOperation_t operation, double const* L, index_t m, double* B, index_t columns) {
  double const one = 1;
  int const n = blas_size(m);
  check(cublasDtrsm(on.blas(), CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_LOWER, operation, CUBLAS_DIAG_NON_UNIT, n,
                    blas_size(columns), &one, L, n, B, n),
        "cuda::solve");
}

}  // namespace detail

/// Upper R with H⁻¹ = Rᵀ R. With J the reversal, J H J = L Lᵀ and R = J L⁻¹ J, so R is the factor that GPTQ walks.
/// False when H is not positive definite. Cost m³/3 + m³ multiply-adds in double; scratch 2 m² doubles. Synchronises.
template <class T>
[[nodiscard]] bool inverse_factor(context& on, device_matrix<T const> H, device_matrix<T> R) {
  index_t const m = H.extent(0);
  if (m == 0) return true;
  auto const L = on.scratch_for<double>(m * m);
  for_each_element(on, m, m, true, detail::take_lower<T>{H, L.data(), true});
  if (!detail::cholesky(on, L.data(), m)) return false;
  auto const inverse = on.scratch_for<double>(m * m);
  for_each_element(on, m, m, true, detail::write_identity{inverse.data(), m});
  detail::solve_lower(on, CUBLAS_OP_N, L.data(), m, inverse.data(), m);
  for_each_element(on, m, m, false, detail::give_turned_upper<T>{inverse.data(), R});
  return true;
}

/// B = H⁻¹ B. False when H is not positive definite, B untouched then. Scratch m (m + p) doubles. Synchronises.
template <class T>
[[nodiscard]] bool solve_positive_definite(context& on, device_matrix<T> H, device_matrix<T> B) {
  index_t const m = H.extent(0), p = B.extent(1);
  if (m == 0) return true;
  auto const L = on.scratch_for<double>(m * m);
  for_each_element(on, m, m, true, detail::take_lower<T>{H, L.data(), false});
  if (!detail::cholesky(on, L.data(), m)) return false;
  if (p == 0) return true;
  auto const right = on.scratch_for<double>(m * p);
  device_matrix<double> const X = transposed(device_matrix<double>(right.data(), p, m));
  copy_elements<T, double>(on, B, X);
  detail::solve_lower(on, CUBLAS_OP_N, L.data(), m, right.data(), p);
  detail::solve_lower(on, CUBLAS_OP_T, L.data(), m, right.data(), p);
  copy_elements<double, T>(on, X, B);
  return true;
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
