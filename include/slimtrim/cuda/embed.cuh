// Rows of the embedding by token.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/words.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

inline constexpr unsigned embed_threads = 256;

template <half_precision T>
__global__ void __launch_bounds__(embed_threads)
    embed_tokens(device_matrix<T const> embedding, std::int32_t const* tokens, device_matrix<float> X,
                 device_report* report) {
  index_t const t = blockIdx.x, id = tokens[t];
  bool const known = id >= 0 && id < embedding.extent(0);
  if (!known && threadIdx.x == 0) raise_to(&report->not_finite, static_cast<unsigned long long>(t) + 1);
  for (index_t j = threadIdx.x; j < X.extent(1); j += embed_threads)
    X(t, j) = known && j < embedding.extent(1) ? static_cast<float>(embedding(id, j)) : 0.0F;
}

}  // namespace detail

/// X[t] = embedding[tokens[t]], zero behind the embedding's columns. tokens: [T] in device memory. An id outside the
/// vocabulary gives zeros and is reported by context::synchronise; callers check what comes from outside.
template <half_precision T>
void embed(context& on, device_matrix<T const> embedding, std::int32_t const* tokens, device_matrix<float> X) {
  expects(X.extent(1) >= embedding.extent(1), "cuda::embed",
          "columns of the result: expected at least the embedding's");
  launch(on.stream(), {dim3(blocks_for(X.extent(0))), detail::embed_threads, 0}, detail::embed_tokens<T>, embedding,
         tokens, X, on.report());
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
