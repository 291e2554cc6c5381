// Device memory: buffers that own it, scratch that lives in stream order, and copies to and from the host.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/memory_space.hpp>
#include <slimtrim/cuda/arch/launch.cuh>
#include <slimtrim/tensor/tensor_view.hpp>

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Views of device memory.
template <class T>
using device_vector = tensor_view<T, 1, space::device>;
template <class T>
using device_matrix = tensor_view<T, 2, space::device>;

namespace cuda {

namespace detail {

// Turns "out of memory" into a message that says how much was asked for.
inline void check_allocation(cudaError_t status, std::size_t bytes) {
  if (status == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());  // as `check` does
    throw system_failure("cuda: device memory exhausted: " + std::to_string(bytes) + " bytes could not be had");
  }
  check(status, "cuda: allocation");
}

template <class T>
std::size_t bytes_of(index_t count) {
  expects(count >= 0 && count <= PTRDIFF_MAX / static_cast<index_t>(sizeof(T)), "cuda", "size does not fit in memory");
  return static_cast<std::size_t>(count) * sizeof(T);
}

}  // namespace detail

/// `size` elements of device memory, aligned to 256 bytes, contents indeterminate; movable only. Allocation and release
/// may wait for the device: for what lives long (weights, caches, workspaces).
template <class T>
class device_buffer {
  static_assert(std::is_trivially_copyable_v<T>, "device_buffer holds plain data");

 public:
  device_buffer() = default;
  explicit device_buffer(index_t size) : size_(size) {
    std::size_t const bytes = detail::bytes_of<T>(size);
    if (bytes == 0) return;
    void* data = nullptr;
    detail::check_allocation(cudaMalloc(&data, bytes), bytes);
    data_ = static_cast<T*>(data);
  }
  device_buffer(device_buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  device_buffer& operator=(device_buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~device_buffer() {
    if (data_ != nullptr) static_cast<void>(cudaFree(data_));
  }

  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] index_t size() const { return size_; }
  [[nodiscard]] device_vector<T> view() const { return device_vector<T>(data_, size_); }
  [[nodiscard]] device_matrix<T> matrix(index_t rows, index_t columns) const {
    expects(rows * columns <= size_, "device_buffer", "a view larger than the buffer");
    return device_matrix<T>(data_, rows, columns);
  }

 private:
  T* data_ = nullptr;
  index_t size_ = 0;
};

/// Scratch in stream order: had when the stream reaches this point, given back when it has passed the end of the scope.
/// After the first use it comes from a pool, without waiting for the device.
template <class T>
class scratch {
 public:
  scratch(cudaMemPool_t pool, cudaStream_t stream, index_t size) : stream_(stream), size_(size) {
    std::size_t const bytes = detail::bytes_of<T>(size);
    if (bytes == 0) return;
    void* data = nullptr;
    detail::check_allocation(cudaMallocFromPoolAsync(&data, bytes, pool, stream), bytes);
    data_ = static_cast<T*>(data);
  }
  scratch(scratch&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), stream_(other.stream_), size_(std::exchange(other.size_, 0)) {}
  scratch& operator=(scratch&&) = delete;
  ~scratch() {
    if (data_ != nullptr) static_cast<void>(cudaFreeAsync(data_, stream_));
  }

  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] index_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  cudaStream_t stream_;
  index_t size_;
};

/// Host memory whose pages stay where they are for as long as this lives, so that the device copies them itself, at the rate of its
/// link: not through a buffer of the driver's, a fraction of that. Where the system refuses, memory is as it was. The
/// memory outlives this. Costs about a third of a second a GiB, once.
class fixed_pages {
 public:
  explicit fixed_pages(std::span<std::byte> memory) {
    if (memory.empty()) return;
    if (cudaHostRegister(memory.data(), memory.size(), cudaHostRegisterDefault) == cudaSuccess) data_ = memory.data();
    else static_cast<void>(cudaGetLastError());
  }
  fixed_pages(fixed_pages const&) = delete;
  fixed_pages& operator=(fixed_pages const&) = delete;
  ~fixed_pages() {
    if (data_ != nullptr) static_cast<void>(cudaHostUnregister(data_));
  }
  [[nodiscard]] bool fixed() const { return data_ != nullptr; }

 private:
  std::byte* data_ = nullptr;
};

/// Enqueues a copy of `count` elements. Host memory that is not pinned makes the copy wait for the device.
template <class T>
void copy_to_device(cudaStream_t stream, T const* from, index_t count, T* to) {
  if (count > 0) check(cudaMemcpyAsync(to, from, detail::bytes_of<T>(count), cudaMemcpyHostToDevice, stream), "copy_to_device");
}
/// Copies `count` elements to the host and waits for them.
template <class T>
void copy_to_host(cudaStream_t stream, T const* from, index_t count, T* to) {
  if (count > 0) check(cudaMemcpyAsync(to, from, detail::bytes_of<T>(count), cudaMemcpyDeviceToHost, stream), "copy_to_host");
  check(cudaStreamSynchronize(stream), "copy_to_host");
}
template <class T>
[[nodiscard]] std::vector<T> values_on_host(cudaStream_t stream, T const* from, index_t count) {
  std::vector<T> to(static_cast<std::size_t>(count));
  copy_to_host(stream, from, count, to.data());
  return to;
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
