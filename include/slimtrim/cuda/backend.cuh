// The device backend: the primitives over cuBLAS and cuSOLVER, and our own kernels for the hot loops.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/cuda/blas.cuh>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/factor.cuh>
#include <slimtrim/cuda/gram.cuh>
#include <slimtrim/cuda/route.cuh>
#include <slimtrim/cuda/rows.cuh>
#include <slimtrim/cuda/top_k.cuh>

#include <cstdint>
#include <memory>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {

/// Everything is enqueued on the caller's stream and returns at once, except what returns a value (`dot`, factors), which
/// waits. Copies share one context. `synchronise` waits and reports what kernels met. Results do not vary from run to run
/// on one device and library version. Not for two host threads at a time: give each its own backend.
class cuda_backend {
 public:
  static constexpr space memory = space::device;

  explicit cuda_backend(cudaStream_t stream = nullptr) : context_(std::make_shared<cuda::context>(stream)) {}

  [[nodiscard]] executor* run_on() const { return nullptr; }
  [[nodiscard]] cuda::context& on() const { return *context_; }
  [[nodiscard]] cudaStream_t stream() const { return context_->stream(); }
  void synchronise() const { context_->synchronise(); }

  template <class T>
  [[nodiscard]] double dot(device_vector<T const> x, device_vector<T const> y) const {
    return cuda::dot<T>(on(), x, y);
  }
  template <class T>
  void row_dots(device_matrix<T const> X, device_matrix<T const> Y, device_vector<T> out) const {
    cuda::row_dots<T>(on(), X, Y, out);
  }
  template <class T, class Result>
  void column_square_sums(device_matrix<T const> X, device_vector<Result> out) const {
    cuda::column_square_sums<T, Result>(on(), X, out);
  }
  template <class T, class Result>
  void gemm(Result alpha, device_matrix<T const> A, device_matrix<T const> B, Result beta, device_matrix<Result> C) const {
    cuda::gemm<T, Result>(on(), alpha, A, B, beta, C);
  }
  template <class T, class Result>
  void gram_update(Result alpha, device_matrix<T const> X, device_matrix<Result> H) const {
    cuda::gram_update<T, Result>(on(), alpha, X, H);
  }
  template <class T>
  [[nodiscard]] bool inverse_factor(device_matrix<T const> H, device_matrix<T> R) const {
    return cuda::inverse_factor<T>(on(), H, R);
  }
  template <class T>
  [[nodiscard]] bool solve_positive_definite(device_matrix<T> H, device_matrix<T> B) const {
    return cuda::solve_positive_definite<T>(on(), H, B);
  }
  template <class T>
  void top_k(device_matrix<T const> X, device_matrix<std::int32_t> indices) const {
    cuda::top_k<T>(on(), X, indices);
  }

  /// slimtrim::row_cosines in one read of both operands; that function checks extents.
  template <class T, class Result>
  void row_cosines(device_matrix<T const> X, device_matrix<T const> Y, device_vector<Result> out) const {
    cuda::row_cosines<T, Result>(on(), X, Y, out);
  }
  /// slimtrim::route; that function checks extents.
  void route(device_matrix<float const> logits, routing_rule const& rule, device_vector<float const> bias,
             device_matrix<std::int32_t> indices, device_matrix<float> weights, device_matrix<float> probabilities,
             device_vector<std::uint8_t const> kept) const {
    cuda::route(on(), logits, rule, bias, {indices, weights, probabilities}, kept);
  }

 private:
  std::shared_ptr<cuda::context> context_;
};

template <>
struct default_backend<space::device> : cuda_backend {
  using cuda_backend::cuda_backend;
};

static_assert(tensor_backend<cuda_backend> && !host_backend<cuda_backend>);

}  // namespace v0
}  // namespace slimtrim
