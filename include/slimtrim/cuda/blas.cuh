// Products by cuBLAS for views of any layout: what cuBLAS takes goes to it in place, anything else is copied first.
#pragma once

#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/elementwise.cuh>
#include <slimtrim/tensor/subview.hpp>

#include <climits>
#include <optional>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// How products of floats are formed: `single`, or `tensor_float` on tensor cores, operands rounded to 11 bits of
/// mantissa.
enum class float_precision { single, tensor_float };

namespace detail {

template <class T>
[[nodiscard]] constexpr cublasComputeType_t blas_compute(float_precision precision) {
  if (std::is_same_v<T, double>) return CUBLAS_COMPUTE_64F;
  return std::is_same_v<T, float> && precision == float_precision::tensor_float ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                                                : CUBLAS_COMPUTE_32F;
}

template <class T>
inline constexpr cudaDataType blas_type = std::is_same_v<T, double>     ? CUDA_R_64F
                                          : std::is_same_v<T, float>    ? CUDA_R_32F
                                          : std::is_same_v<T, bfloat16> ? CUDA_R_16BF
                                                                        : CUDA_R_16F;

[[nodiscard]] inline int blas_size(index_t n) {
  expects(n <= INT_MAX, "cuda::gemm", "extent or stride: expected less than 2^31");
  return static_cast<int>(n);
}

// C = beta C; beta = 0 does not read C.
template <class T>
struct scale_element {
  T beta;
  device_matrix<T> C;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { C(i, j) = beta == T{0} ? T{0} : beta * C(i, j); }
};

// Columns contiguous and apart from each other: a column-major matrix with leading dimension stride(1).
template <class T>
[[nodiscard]] bool column_major(device_matrix<T> x) {
  index_t const rows = x.extent(0), columns = x.extent(1);
  return (x.stride(0) == 1 || rows <= 1) && (x.stride(1) >= (rows > 1 ? rows : 1) || columns <= 1);
}
template <class T>
[[nodiscard]] int leading_dimension(device_matrix<T> x) {
  index_t const least = x.extent(0) > 1 ? x.extent(0) : 1;
  return blas_size(x.extent(1) > 1 && x.stride(1) > least ? x.stride(1) : least);
}

// An operand as cuBLAS sees it: a column-major matrix, or the transpose of one, or a copy.
template <class T>
class blas_operand {
 public:
  blas_operand(context& on, device_matrix<T const> x) : seen_(x) {
    if (column_major(x)) return;
    if (column_major(transposed(x))) {
      operation = CUBLAS_OP_T;
      seen_ = transposed(x);
      return;
    }
    copy_.emplace(on.scratch_for<T>(x.size()));
    device_matrix<T> const to = transposed(device_matrix<T>(copy_->data(), x.extent(1), x.extent(0)));
    copy_elements(on, x, to);
    seen_ = to;
  }
  [[nodiscard]] T const* data() const { return seen_.data; }
  [[nodiscard]] int leading() const { return leading_dimension(seen_); }
  cublasOperation_t operation = CUBLAS_OP_N;

 private:
  device_matrix<T const> seen_;
  std::optional<scratch<T>> copy_;
};

}  // namespace detail

/// C = alpha A B + beta C. A: [n, k], B: [k, m], C: [n, m]; beta = 0 does not read C. T: float, double, or a 16-bit
/// type with a float result. Sums in float (double for double); floats are rounded to TF32 where `precision` says so,
/// and only there. The same bits for the same shapes and layouts on the same device and library. Scratch: a copy of
/// every operand that is neither row- nor column-major.
template <class T, class Result = accumulator_t<T>>
void gemm(context& on, Result alpha, device_matrix<T const> A, device_matrix<T const> B, Result beta,
          device_matrix<Result> C, float_precision precision = float_precision::single) {
  index_t const n = C.extent(0), m = C.extent(1), k = A.extent(1);
  if (n == 0 || m == 0) return;
  if (k == 0) return for_each_element(on, n, m, false, detail::scale_element<Result>{beta, C});
  if (!detail::column_major(C)) {
    if (detail::column_major(transposed(C))) {
      gemm<T, Result>(on, alpha, transposed(B), transposed(A), beta, transposed(C), precision);
      return;
    }
    auto const dense = on.scratch_for<Result>(n * m);
    device_matrix<Result> const copy(dense.data(), n, m);
    if (beta != Result{0}) copy_elements<Result, Result>(on, C, copy);
    gemm<T, Result>(on, alpha, A, B, beta, copy, precision);
    copy_elements<Result, Result>(on, copy, C);
    return;
  }
  detail::blas_operand<T> const a(on, A), b(on, B);
  check(cublasGemmEx(on.blas(), a.operation, b.operation, detail::blas_size(n), detail::blas_size(m),
                     detail::blas_size(k), &alpha, a.data(), detail::blas_type<T>, a.leading(), b.data(),
                     detail::blas_type<T>, b.leading(), &beta, C.data, detail::blas_type<Result>,
                     detail::leading_dimension(C), detail::blas_compute<T>(precision), CUBLAS_GEMM_DEFAULT),
        "cuda::gemm");
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
