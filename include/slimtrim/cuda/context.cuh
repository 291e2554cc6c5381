// What a backend owns on a device: stream, library handles, a pool for scratch, and a word in which kernels report.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/memory.cuh>

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cusolverDn.h>

#include <cstdint>
#include <string>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

inline void check(cublasStatus_t status, char const* where) {
  if (status != CUBLAS_STATUS_SUCCESS) throw system_failure(std::string(where) + ": " + cublasGetStatusName(status));
}
inline void check(cusolverStatus_t status, char const* where) {
  if (status != CUSOLVER_STATUS_SUCCESS)
    throw system_failure(std::string(where) + ": cuSOLVER status " + std::to_string(static_cast<int>(status)));
}

namespace detail {

// Tells what this translation unit was compiled for.
static __global__ void only_wait() { wait_for_earlier_work(); }

}  // namespace detail

/// What kernels report without stopping the host: the place of a number that is not finite, plus one; 0 for none.
struct device_report {
  unsigned long long not_finite = 0;
};

/// Stream, handles and scratch of one backend. The stream is the caller's and outlives the context; all else is made on the
/// device that is current when the context is, handles at their first use. Not for two host threads at a time.
class context {
 public:
  explicit context(cudaStream_t stream) : stream_(stream) {
    check(cudaGetDevice(&device_), "cuda::context: no device");
    check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device_), "cuda::context");
    check(cudaDeviceGetAttribute(&major_, cudaDevAttrComputeCapabilityMajor, device_), "cuda::context");
    check(cudaDeviceGetAttribute(&minor_, cudaDevAttrComputeCapabilityMinor, device_), "cuda::context");
    if (major_ < 8)
      throw error("cuda::context: compute capability: expected 8.0 or newer, found " + std::to_string(major_) + "." +
                  std::to_string(minor_));
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device_;
    check(cudaMemPoolCreate(&pool_, &properties), "cuda::context: memory pool");
    // What was freed stays with the pool, so that scratch costs nothing the second time.
    std::uint64_t keep = UINT64_MAX;
    check(cudaMemPoolSetAttribute(pool_, cudaMemPoolAttrReleaseThreshold, &keep), "cuda::context: memory pool");
    report_ = device_buffer<device_report>(1);
    check(cudaMemsetAsync(report_.data(), 0, sizeof(device_report), stream_), "cuda::context");
  }
  context(context const&) = delete;
  context& operator=(context const&) = delete;
  ~context() {
    static_cast<void>(cudaStreamSynchronize(stream_));
    if (solver_made_) static_cast<void>(cusolverDnDestroy(solver_));
    if (blas_made_) static_cast<void>(cublasDestroy(blas_));
    static_cast<void>(cudaMemPoolDestroy(pool_));
  }

  [[nodiscard]] cudaStream_t stream() const { return stream_; }
  [[nodiscard]] int multiprocessors() const { return multiprocessors_; }
  /// 80, 90, ...
  [[nodiscard]] int compute_capability() const { return 10 * major_ + minor_; }
  [[nodiscard]] device_report* report() const { return report_.data(); }

  /// Made at its first use, which allocates: call it once before a stream is captured.
  [[nodiscard]] cublasHandle_t blas() {
    if (!blas_made_) {
      check(cublasCreate(&blas_), "cuda::context: cuBLAS");
      blas_made_ = true;
      check(cublasSetStream(blas_, stream_), "cuda::context: cuBLAS");
      // Memory of our own: without it cuBLAS takes new memory for every captured graph, and keeps it. Setting the
      // stream would undo this, so it comes second. 32 MiB is what cuBLAS asks for on sm_90.
      blas_workspace_ = device_buffer<unsigned char>(index_t{32} << 20);
      check(cublasSetWorkspace(blas_, blas_workspace_.data(), std::size_t{32} << 20), "cuda::context: cuBLAS");
    }
    return blas_;
  }
  [[nodiscard]] cusolverDnHandle_t solver() {
    if (!solver_made_) {
      check(cusolverDnCreate(&solver_), "cuda::context: cuSOLVER");
      solver_made_ = true;
      check(cusolverDnSetStream(solver_, stream_), "cuda::context: cuSOLVER");
    }
    return solver_;
  }
  /// From now on the kernels of decoding may begin before those in front of them have ended (compute capability 9.0 and
  /// newer), and read weights meanwhile: only while nothing on the stream writes weights. Nothing happens where the code was
  /// compiled for an older device, and so cannot wait.
  void overlap_launches(bool wanted) {
    overlaps_ = false;
    if (!wanted || major_ < 9) return;
    cudaFuncAttributes code{};
    check(cudaFuncGetAttributes(&code, detail::only_wait), "cuda::context");
    overlaps_ = code.ptxVersion >= 90;
  }
  [[nodiscard]] bool overlaps() const { return overlaps_; }
  /// The same for as long as this lives.
  class overlapping {
   public:
    overlapping(context& on, bool wanted) : on_(on), before_(on.overlaps_) { on_.overlap_launches(wanted); }
    overlapping(overlapping const&) = delete;
    overlapping& operator=(overlapping const&) = delete;
    ~overlapping() { on_.overlaps_ = before_; }

   private:
    context& on_;
    bool before_;
  };

  template <class T>
  [[nodiscard]] scratch<T> scratch_for(index_t size) const {
    return scratch<T>(pool_, stream_, size);
  }

  /// Waits for the stream. Throws `numeric_error` when a kernel met a logit or element that is not finite since the last
  /// call, and `system_failure` when the device failed.
  void synchronise() {
    device_report found;
    copy_to_host(stream_, report_.data(), 1, &found);
    if (found.not_finite == 0) return;
    check(cudaMemsetAsync(report_.data(), 0, sizeof(device_report), stream_), "cuda::context");
    throw numeric_error("cuda: element " + std::to_string(found.not_finite - 1) +
                        " of an operand: expected a finite number");
  }

 private:
  cudaStream_t stream_;
  int device_ = 0, multiprocessors_ = 0, major_ = 0, minor_ = 0;
  cudaMemPool_t pool_{};
  device_buffer<device_report> report_;
  device_buffer<unsigned char> blas_workspace_;
  cublasHandle_t blas_{};
  cusolverDnHandle_t solver_{};
  bool blas_made_ = false, solver_made_ = false, overlaps_ = false;
};

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
