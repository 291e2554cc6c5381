// The host's stand-in for include/slimtrim/cuda/arch/graph.cuh: the function is kept and called.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <utility>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

class captured_work {
 public:
  captured_work() = default;
  template <class F>
  captured_work(cudaStream_t, F&& enqueue) : work_(std::forward<F>(enqueue)) {}
  captured_work(captured_work&& other) noexcept : work_(std::exchange(other.work_, nullptr)) {}
  captured_work& operator=(captured_work&& other) noexcept {
    std::swap(work_, other.work_);
    return *this;
  }
  [[nodiscard]] explicit operator bool() const { return static_cast<bool>(work_); }
  void run(cudaStream_t) const { work_(); }

 private:
  std::function<void()> work_;
};

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
