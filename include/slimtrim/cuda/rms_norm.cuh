// Root-mean-square normalisation fused with the addition that comes before it in a decoder layer.
#pragma once

#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/reduce.cuh>
#include <slimtrim/cuda/words.hpp>

#include <cmath>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

inline constexpr int norm_threads = 512;
// Columns that the threads of a block keep in registers: rows of up to 8192 are read once.
inline constexpr int norm_held_columns = 8192;

// One block a row: X += added, then N = weight * X / rms, also to `copy` where there is one. What is wider than the
// model in N becomes zero. A single row is one block's work, so all of a thread's loads are on their way before the
// first is needed.
template <half_precision T, int Threads>
__device__ __forceinline__ void normalise_row(device_matrix<float> X, device_matrix<float const> added,
                                              device_vector<float const> weight, double epsilon, device_matrix<T> N,
                                              index_t row, double* slots, T* copy) {
  constexpr int count = norm_held_columns / Threads;
  index_t const width = weight.extent(0), thread = threadIdx.x;
  float* const x = X.data + row * X.stride(0);
  float const* const y = added.data != nullptr ? added.data + row * added.stride(0) : nullptr;
  T* const n = N.data + row * N.stride(0);
  float held[count];
  double squares = 0;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    index_t const j = thread + i * Threads;
    held[i] = j < width ? (y != nullptr ? x[j] + y[j] : x[j]) : 0.0F;
  }
#pragma unroll
  for (int i = 0; i < count; ++i) {
    index_t const j = thread + i * Threads;
    if (y != nullptr && j < width) x[j] = held[i];
    squares += static_cast<double>(held[i]) * static_cast<double>(held[i]);
  }
  for (index_t j = thread + norm_held_columns; j < width; j += Threads) {
    float const value = y != nullptr ? x[j] + y[j] : x[j];
    if (y != nullptr) x[j] = value;
    squares += static_cast<double>(value) * static_cast<double>(value);
  }
  squares = sum_of_block(squares, slots);
  float const factor = static_cast<float>(1.0 / sqrt(squares / static_cast<double>(width) + epsilon));
  auto const put = [&](index_t j, float value) {
    T const result = j < width ? T(weight(j) * (value * factor)) : T(0.0F);
    n[j] = result;
    if (copy != nullptr) copy[j] = result;
  };
#pragma unroll
  for (int i = 0; i < count; ++i) {
    index_t const j = thread + i * Threads;
    if (j < N.extent(1)) put(j, held[i]);
  }
  // A thread reads only what it wrote itself.
  for (index_t j = thread + norm_held_columns; j < N.extent(1); j += Threads) put(j, j < width ? x[j] : 0.0F);
}

template <half_precision T>
__global__ void __launch_bounds__(norm_threads)
    add_and_normalise(device_matrix<float> X, device_matrix<float const> added, device_vector<float const> weight,
                      double epsilon, device_matrix<T> N) {
  __shared__ double slots[norm_threads / 32];
  let_later_work_begin();
  wait_for_earlier_work();
  normalise_row<T, norm_threads>(X, added, weight, epsilon, N, blockIdx.x, slots, nullptr);
}

// Throws unless the operands of a normalisation fit together.
template <half_precision T>
void check_normalise(device_matrix<float> X, device_matrix<float const> added, device_vector<float const> weight,
                     device_matrix<T> N) {
  expects(X.extent(1) >= weight.extent(0) && N.extent(1) >= weight.extent(0), "cuda::add_and_normalise",
          "columns: expected at least the length of the weight");
  expects_equal(N.extent(0), X.extent(0), "cuda::add_and_normalise", "rows of the result");
  expects(X.stride(1) == 1 && N.stride(1) == 1 && weight.stride(0) == 1, "cuda::add_and_normalise",
          "expected contiguous rows");
  if (added.data != nullptr)
    expects(added.extent(0) == X.extent(0) && added.extent(1) >= weight.extent(0) && added.stride(1) == 1,
            "cuda::add_and_normalise", "added: expected the shape of X");
}

}  // namespace detail

/// X[t] += added[t] (nothing without data), then N[t] = weight * X[t] / sqrt(mean_d X[t, d]^2 + epsilon), rounded to T.
///
/// weight: [D]; X, added: [T, >= D], N: [T, >= D] with contiguous rows; columns of N from D on become zero, those of X
/// stay. The mean is formed in double, in an order of its own: deterministic. One read of X and `added`, one write of X
/// and N.
template <half_precision T>
void add_and_normalise(context& on, device_matrix<float> X, device_matrix<float const> added,
                       device_vector<float const> weight, double epsilon, device_matrix<T> N) {
  detail::check_normalise<T>(X, added, weight, N);
  launch(on.stream(), {dim3(blocks_for(X.extent(0))), detail::norm_threads, 0, on.overlaps()}, detail::add_and_normalise<T>, X, added,
         weight, epsilon, N);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
