// H += alpha Xᵀ X, exactly symmetric: by SYRK in float and double, on tensor cores for 16-bit activations.
//
// Products of 16-bit numbers are exact in float, so the tensor-core form loses nothing against converting to float first.
#pragma once

#include <slimtrim/cuda/blas.cuh>

#include <type_traits>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

template <class T>
struct mirror_lower {
  device_matrix<T> H;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const {
    if (i < j) H(i, j) = H(j, i);
  }
};

template <class T>
void syrk_lower(context& on, T alpha, device_matrix<T const> X, device_matrix<T> H) {
  blas_operand<T> const x(on, X);
  // SYRK multiplies op(A) op(A)ᵀ with A as stored, and Xᵀ takes the place of op(A).
  auto const operation = x.operation == CUBLAS_OP_N ? CUBLAS_OP_T : CUBLAS_OP_N;
  int const n = blas_size(H.extent(0)), k = blas_size(X.extent(0)), ld = leading_dimension(H);
  T const one{1};
  if constexpr (std::is_same_v<T, double>) {
    check(cublasDsyrk(on.blas(), CUBLAS_FILL_MODE_LOWER, operation, n, k, &alpha, x.data(), x.leading(), &one, H.data, ld),
          "cuda::gram_update");
  } else {
    check(cublasSsyrk(on.blas(), CUBLAS_FILL_MODE_LOWER, operation, n, k, &alpha, x.data(), x.leading(), &one, H.data, ld),
          "cuda::gram_update");
  }
}

}  // namespace detail

/// H += alpha Xᵀ X. X: [n, m] in float, double, bfloat16 or float16; H: [m, m] in the accumulator type, both triangles
/// written, the lower one decides. H's layout: any; one that cuBLAS cannot take costs a copy of m² elements there and back.
template <class T, class Result = accumulator_t<T>>
void gram_update(context& on, Result alpha, device_matrix<T const> X, device_matrix<Result> H) {
  index_t const m = H.extent(0);
  if (m == 0) return;
  if (std::is_same_v<T, Result> && !detail::column_major(H)) {
    auto const dense = on.scratch_for<Result>(m * m);
    device_matrix<Result> const copy = transposed(device_matrix<Result>(dense.data(), m, m));
    copy_elements<Result, Result>(on, H, copy);
    gram_update<T, Result>(on, alpha, X, copy);
    copy_elements<Result, Result>(on, copy, H);
    return;
  }
  if (X.extent(0) > 0) {
    if constexpr (std::is_same_v<T, Result>) {
      detail::syrk_lower<T>(on, alpha, X, H);
    } else {
      gemm<T, Result>(on, alpha, transposed(X), X, Result{1}, H);
    }
  }
  for_each_element(on, m, m, true, detail::mirror_lower<Result>{H});
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
