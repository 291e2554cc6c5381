#include <cublas_v2.h>
#include <cusolverDn.h>
#include <slimtrim/core/float16.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

double read(void const* data, cudaDataType type, std::int64_t at) {
  switch (type) {
    case CUDA_R_32F: return static_cast<double>(static_cast<float const*>(data)[at]);
    case CUDA_R_64F: return static_cast<double const*>(data)[at];
    case CUDA_R_16F: return static_cast<double>(static_cast<float>(static_cast<slimtrim::float16 const*>(data)[at]));
    default: return static_cast<double>(static_cast<float>(static_cast<slimtrim::bfloat16 const*>(data)[at]));
  }
}
void write(void* data, cudaDataType type, std::int64_t at, double value) {
  switch (type) {
    case CUDA_R_32F: static_cast<float*>(data)[at] = static_cast<float>(value); return;
    case CUDA_R_64F: static_cast<double*>(data)[at] = value; return;
    case CUDA_R_16F: static_cast<slimtrim::float16*>(data)[at] = slimtrim::float16(static_cast<float>(value)); return;
    default: static_cast<slimtrim::bfloat16*>(data)[at] = slimtrim::bfloat16(static_cast<float>(value));
  }
}
int size_of(cudaDataType type) { return type == CUDA_R_64F ? 8 : (type == CUDA_R_32F ? 4 : 2); }
// Element (i, j) of op(X) for a column-major X.
std::int64_t at(cublasOperation_t op, std::int64_t i, std::int64_t j, int ld) {
  return op == CUBLAS_OP_N ? i + j * ld : j + i * ld;
}

// to += factor * from
void add_times(double* to, double const* from, double factor, int count) {
  for (int i = 0; i < count; ++i) to[i] += factor * from[i];
}

template <class T>
void syrk(cublasFillMode_t fill, cublasOperation_t op, int n, int k, T alpha, T const* A, int lda, T beta, T* C, int ldc) {
  for (int j = 0; j < n; ++j)
    for (int i = 0; i < n; ++i) {
      if (fill == CUBLAS_FILL_MODE_LOWER ? i < j : i > j) continue;
      double sum = 0;
      for (int l = 0; l < k; ++l) sum += static_cast<double>(A[at(op, i, l, lda)]) * static_cast<double>(A[at(op, j, l, lda)]);
      T& c = C[i + std::int64_t{j} * ldc];
      emulator::mark_written(&c, sizeof(T));
      c = static_cast<T>(static_cast<double>(alpha) * sum + (beta == T{0} ? 0.0 : static_cast<double>(beta * c)));
    }
}

}  // namespace

cublasStatus_t cublasCreate(cublasHandle_t* handle) {
  *handle = nullptr;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetStream(cublasHandle_t, cudaStream_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetWorkspace(cublasHandle_t, void*, std::size_t) { return CUBLAS_STATUS_SUCCESS; }
char const* cublasGetStatusName(cublasStatus_t) { return "emulated"; }

cublasStatus_t cublasGemmEx(cublasHandle_t, cublasOperation_t a_op, cublasOperation_t b_op, int m, int n, int k,
                            void const* alpha, void const* A, cudaDataType a_type, int lda, void const* B,
                            cudaDataType b_type, int ldb, void const* beta, void* C, cudaDataType c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t) {
  cudaDataType const scalar = compute == CUBLAS_COMPUTE_64F ? CUDA_R_64F : CUDA_R_32F;
  double const a = read(alpha, scalar, 0), b = read(beta, scalar, 0);
  auto const rows = static_cast<std::size_t>(m);
  std::vector<double> columns(rows * static_cast<std::size_t>(k)), sums(rows);  // of op(A), one behind the other
  for (int l = 0; l < k; ++l)
    for (int i = 0; i < m; ++i)
      columns[static_cast<std::size_t>(l) * rows + static_cast<std::size_t>(i)] = read(A, a_type, at(a_op, i, l, lda));
  for (int j = 0; j < n; ++j) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (int l = 0; l < k; ++l) add_times(sums.data(), columns.data() + static_cast<std::size_t>(l) * rows, read(B, b_type, at(b_op, l, j, ldb)), m);
    std::int64_t const first = std::int64_t{j} * ldc;
    emulator::mark_written(static_cast<char*>(C) + first * size_of(c_type), static_cast<std::size_t>(m) * static_cast<std::size_t>(size_of(c_type)));
    for (int i = 0; i < m; ++i) {
      std::int64_t const to = i + first;
      write(C, c_type, to, a * sums[static_cast<std::size_t>(i)] + (b == 0 ? 0.0 : b * read(C, c_type, to)));
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t a_op, cublasOperation_t b_op, int m,
                                          int n, int k, void const* alpha, void const* A, cudaDataType a_type, int lda,
                                          long long a_step, void const* B, cudaDataType b_type, int ldb,
                                          long long b_step, void const* beta, void* C, cudaDataType c_type, int ldc,
                                          long long c_step, int count, cublasComputeType_t compute,
                                          cublasGemmAlgo_t how) {
  for (int i = 0; i < count; ++i)
    cublasGemmEx(handle, a_op, b_op, m, n, k, alpha, static_cast<char const*>(A) + i * a_step * size_of(a_type), a_type,
                 lda, static_cast<char const*>(B) + i * b_step * size_of(b_type), b_type, ldb, beta,
                 static_cast<char*>(C) + i * c_step * size_of(c_type), c_type, ldc, compute, how);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSsyrk(cublasHandle_t, cublasFillMode_t fill, cublasOperation_t op, int n, int k, float const* alpha,
                           float const* A, int lda, float const* beta, float* C, int ldc) {
  syrk(fill, op, n, k, *alpha, A, lda, *beta, C, ldc);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDsyrk(cublasHandle_t, cublasFillMode_t fill, cublasOperation_t op, int n, int k, double const* alpha,
                           double const* A, int lda, double const* beta, double* C, int ldc) {
  syrk(fill, op, n, k, *alpha, A, lda, *beta, C, ldc);
  return CUBLAS_STATUS_SUCCESS;
}
// Only what the library asks for: from the left, lower, not unit.
cublasStatus_t cublasDtrsm(cublasHandle_t, cublasSideMode_t, cublasFillMode_t, cublasOperation_t op, cublasDiagType_t, int m,
                           int n, double const* alpha, double const* A, int lda, double* B, int ldb) {
  for (int c = 0; c < n; ++c) {
    double* const x = B + std::int64_t{c} * ldb;
    for (int i = 0; i < m; ++i) x[i] *= *alpha;
    for (int step = 0; step < m; ++step) {
      int const i = op == CUBLAS_OP_N ? step : m - 1 - step;
      double const* const column = A + std::int64_t{i} * lda;
      if (op == CUBLAS_OP_N) {
        x[i] /= column[i];
        add_times(x + i + 1, column + i + 1, -x[i], m - i - 1);
      } else {
        for (int j = i + 1; j < m; ++j) x[i] -= column[j] * x[j];
        x[i] /= column[i];
      }
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle) {
  *handle = nullptr;
  return CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t) { return CUSOLVER_STATUS_SUCCESS; }
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t, cudaStream_t) { return CUSOLVER_STATUS_SUCCESS; }
cusolverStatus_t cusolverDnDpotrf_bufferSize(cusolverDnHandle_t, cublasFillMode_t, int, double*, int, int* size) {
  *size = 1;
  return CUSOLVER_STATUS_SUCCESS;
}
// Lower only. NaN passes on purpose: whether the real one reports it is not documented.
cusolverStatus_t cusolverDnDpotrf(cusolverDnHandle_t, cublasFillMode_t, int n, double* A, int lda, double*, int, int* info) {
  *info = 0;
  emulator::mark_written(info, sizeof(int));
  auto const L = [&](int i, int j) -> double& { return A[i + std::int64_t{j} * lda]; };
  for (int j = 0; j < n; ++j) {
    if (L(j, j) <= 0) {
      *info = j + 1;
      return CUSOLVER_STATUS_SUCCESS;
    }
    L(j, j) = std::sqrt(L(j, j));
    for (int i = j + 1; i < n; ++i) L(i, j) /= L(j, j);
    for (int k = j + 1; k < n; ++k) add_times(&L(k, k), &L(k, j), -L(k, j), n - k);
  }
  return CUSOLVER_STATUS_SUCCESS;
}
