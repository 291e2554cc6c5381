// Baselines that every ratio of this program is taken against, measured in the same run: streaming reads and sgemm.
#pragma once

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/tensor/buffer.hpp>

#include <cstdint>
#include <thread>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace slimtrim_bench {

using slimtrim::index_t;
using slimtrim::matrix;

#if defined(__GLIBC__)
/// Results take the memory of those before them, as under an engine's own allocator: what the system needs to hand out fresh
/// pages is not what is measured.
inline bool const memory_is_kept = mallopt(M_MMAP_THRESHOLD, 1 << 30) == 1 && mallopt(M_TRIM_THRESHOLD, 1 << 30) == 1;
#endif

inline slimtrim::thread_pool& pool() {
  static slimtrim::thread_pool threads(static_cast<index_t>(std::thread::hardware_concurrency()));
  return threads;
}

/// Cheap pseudo-random weights; the values only have to differ.
template <class T>
matrix<T> weights(index_t n, index_t c) {
  matrix<T> W(n, c);
  slimtrim::parallel_for(&pool(), n, [&](index_t i) {
    std::uint64_t state = slimtrim::random_bits_at(1, 0, static_cast<std::uint64_t>(i));
    for (index_t j = 0; j < c; ++j) {
      state = state * 6364136223846793005U + 1442695040888963407U;
      W(i, j) = static_cast<T>((static_cast<float>(state >> 40) - 8388608.0F) * 5e-9F);
    }
  });
  return W;
}

/// Xᵀ X of correlated inputs: weights plus a common component.
inline matrix<float> hessian(index_t tokens, index_t c) {
  auto X = weights<float>(tokens, c);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t j = 0; j < c; ++j) X(t, j) = 20.0F * X(t, j) + X(t, 0) * static_cast<float>(j % 7);
  matrix<float> H(c, c);
  H.fill(0.0F);
  slimtrim::eigen_backend(pool()).gram_update(1.0F, slimtrim::as_const(X.view()), H.view());
  return H;
}

}  // namespace slimtrim_bench
