// The one cuSOLVER call that the library makes, as a plain loop.
#pragma once

#include <cublas_v2.h>

enum cusolverStatus_t { CUSOLVER_STATUS_SUCCESS = 0 };
using cusolverDnHandle_t = struct emulated_solver*;

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t*);
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t);
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t, cudaStream_t);
cusolverStatus_t cusolverDnDpotrf_bufferSize(cusolverDnHandle_t, cublasFillMode_t, int n, double* A, int lda, int* size);
cusolverStatus_t cusolverDnDpotrf(cusolverDnHandle_t, cublasFillMode_t, int n, double* A, int lda, double* work, int size,
                                  int* info);
