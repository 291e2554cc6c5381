// The host's stand-in for include/slimtrim/cuda/arch/graph.cuh: the function is kept and called.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <stdexcept>
#include <utility>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

[[nodiscard]] inline bool can_be_captured(cudaStream_t stream) { return stream != nullptr; }

class captured_work {
 public:
  captured_work() = default;
  template <class F>
  captured_work(cudaStream_t stream, F&& enqueue) : work_(std::forward<F>(enqueue)) {
    if (!can_be_captured(stream)) throw std::logic_error("the null stream was to be captured");
  }
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
