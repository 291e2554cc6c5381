// Work that is enqueued again and again, kept as a CUDA graph.
#pragma once

#include <slimtrim/cuda/arch/launch.cuh>

#include <cuda_runtime.h>

#include <utility>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Whether work on `stream` can be recorded: not on the null stream, which other streams wait for.
[[nodiscard]] inline bool can_be_captured(cudaStream_t stream) { return stream != nullptr && stream != cudaStreamLegacy; }

/// What one call of a function enqueues on a stream, to be enqueued again without the function. Movable only.
class captured_work {
 public:
  captured_work() = default;
  /// Calls `enqueue` once, recording instead of running. It must enqueue on `stream` alone and wait for nothing; what
  /// throws inside ends the recording. `stream` can be captured.
  template <class F>
  captured_work(cudaStream_t stream, F&& enqueue) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "captured_work");
    cudaGraph_t graph{};
    try {
      enqueue();
    } catch (...) {
      if (cudaStreamEndCapture(stream, &graph) == cudaSuccess && graph != nullptr)
        static_cast<void>(cudaGraphDestroy(graph));
      static_cast<void>(cudaGetLastError());
      throw;
    }
    check(cudaStreamEndCapture(stream, &graph), "captured_work");
    cudaError_t const status = cudaGraphInstantiate(&work_, graph, 0);
    static_cast<void>(cudaGraphDestroy(graph));
    check(status, "captured_work");
  }
  captured_work(captured_work&& other) noexcept : work_(std::exchange(other.work_, nullptr)) {}
  captured_work& operator=(captured_work&& other) noexcept {
    std::swap(work_, other.work_);
    return *this;
  }
  ~captured_work() {
    if (work_ != nullptr) static_cast<void>(cudaGraphExecDestroy(work_));
  }

  [[nodiscard]] explicit operator bool() const { return work_ != nullptr; }
  /// Enqueues the recorded work.
  void run(cudaStream_t stream) const { check(cudaGraphLaunch(work_, stream), "captured_work"); }

 private:
  cudaGraphExec_t work_ = nullptr;
};

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
