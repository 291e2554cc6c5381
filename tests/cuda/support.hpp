// Device memory for tests: the harness of the backend suite, and uploads that live as long as the harness.
#pragma once

#include "backend/operand.hpp"

#include <slimtrim/cuda/backend.cuh>
#include <slimtrim/tensor/buffer.hpp>

#include <cstddef>
#include <memory>
#include <vector>

namespace cuda_tests {

using namespace slimtrim;

// A stream that can be captured; the null stream cannot.
class own_stream {
 public:
  own_stream() { cuda::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream"); }
  own_stream(own_stream const&) = delete;
  own_stream& operator=(own_stream const&) = delete;
  ~own_stream() { static_cast<void>(cudaStreamDestroy(stream_)); }
  [[nodiscard]] cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_{};
};

class device_memory {
 public:
  device_memory() = default;
  explicit device_memory(cudaStream_t stream) : backend_(stream) {}
  [[nodiscard]] cuda_backend const& backend() const { return backend_; }

  // For backend_tests::placed: a copy of the storage, and back.
  template <class T>
  T* upload(std::vector<T>& storage) {
    void* data = nullptr;
    cuda::check(cudaMalloc(&data, storage.size() * sizeof(T)), "upload");
    cuda::copy_to_device(backend_.stream(), storage.data(), static_cast<index_t>(storage.size()), static_cast<T*>(data));
    return static_cast<T*>(data);
  }
  template <class T>
  void download(T* data, std::vector<T>& storage) {
    cuda::copy_to_host(backend_.stream(), data, static_cast<index_t>(storage.size()), storage.data());
    cuda::check(cudaFree(data), "download");
  }

  // Memory that is released with this object.
  template <class T>
  [[nodiscard]] T* keep(T const* from, index_t count) {
    auto held = std::make_shared<cuda::device_buffer<T>>(count);
    if (from != nullptr) {
      cuda::copy_to_device(backend_.stream(), from, count, held->data());
    } else if (count > 0) {
      // Poison: NaN as a float, large as an integer.
      cuda::check(cudaMemsetAsync(held->data(), 0xff, static_cast<std::size_t>(count) * sizeof(T), backend_.stream()), "keep");
    }
    T* const data = held->data();
    held_.push_back(std::move(held));
    return data;
  }
  template <class T>
  [[nodiscard]] device_vector<T> vector(index_t count) {
    return device_vector<T>(keep<T>(nullptr, count), count);
  }
  template <class T>
  [[nodiscard]] device_matrix<T> matrix(index_t rows, index_t columns) {
    return device_matrix<T>(keep<T>(nullptr, rows * columns), rows, columns);
  }
  template <class T>
  [[nodiscard]] device_matrix<T> upload_matrix(tensor<T, 2> const& from, backend_tests::layout how = backend_tests::layout::rows) {
    index_t const n = from.extent(0), m = from.extent(1), pad = 3;
    index_t const down = how == backend_tests::layout::columns ? 1 : (how == backend_tests::layout::padded_rows ? m + pad : m);
    index_t const across = how == backend_tests::layout::columns ? n : 1;
    std::vector<T> storage(static_cast<std::size_t>((n + 1) * (m + pad)));
    index_t const sizes[2] = {n, m}, steps[2] = {down, across};
    matrix_view<T> const host(storage.data(), sizes, steps);
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < m; ++j) host(i, j) = from(i, j);
    return device_matrix<T>(keep<T>(storage.data(), static_cast<index_t>(storage.size())), sizes, steps);
  }

  template <class T>
  [[nodiscard]] std::vector<T> download(device_vector<T> from) {
    std::vector<T> to(static_cast<std::size_t>(from.extent(0)));
    cuda::copy_to_host(backend_.stream(), from.data, from.extent(0), to.data());
    return to;
  }
  template <class T>
  [[nodiscard]] std::vector<T> download(device_matrix<T> from) {
    std::vector<T> to(static_cast<std::size_t>(from.size()));
    cuda::copy_to_host(backend_.stream(), from.data, from.size(), to.data());
    return to;
  }

 private:
  cuda_backend backend_;
  std::vector<std::shared_ptr<void>> held_;
};

}  // namespace cuda_tests
