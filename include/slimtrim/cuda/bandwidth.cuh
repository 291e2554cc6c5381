// How fast the device reads its memory: what a share of bandwidth is a share of.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/context.cuh>

#include <algorithm>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

static __global__ void __launch_bounds__(512) read_words(words4 const* from, index_t count, std::uint32_t* out) {
  std::uint32_t sum = 0;
  index_t const step = static_cast<index_t>(gridDim.x) * blockDim.x;
#pragma unroll 8
  for (index_t i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    words4 const v = load_once(from + i);
    sum += v.word[0] ^ v.word[1] ^ v.word[2] ^ v.word[3];
  }
  if (sum == 0x12345678U) *out = sum;  // so that nothing is left out
}

}  // namespace detail

/// Bytes a second: the best of a few passes over a buffer sixteen times the L2 cache, by the device's clock.
[[nodiscard]] inline double read_bandwidth(context& on) {
  int number = 0, cache = 0;
  check(cudaGetDevice(&number), "cuda::read_bandwidth");
  check(cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, number), "cuda::read_bandwidth");
  index_t const bytes = std::max<index_t>(16 * static_cast<index_t>(cache), index_t{1} << 20), count = bytes / 16;
  device_buffer<words4> const memory(count);
  device_buffer<std::uint32_t> const out(1);
  check(cudaMemsetAsync(memory.data(), 0x5a, 16 * static_cast<std::size_t>(count), on.stream()),
        "cuda::read_bandwidth");
  cudaEvent_t begin{}, end{};
  check(cudaEventCreate(&begin), "cuda::read_bandwidth");
  check(cudaEventCreate(&end), "cuda::read_bandwidth");
  float best = 1e30F;
  for (int pass = 0; pass < 8; ++pass) {
    unsigned const waves = 2U << (pass % 4);
    check(cudaEventRecord(begin, on.stream()), "cuda::read_bandwidth");
    launch(on.stream(), {dim3(waves * static_cast<unsigned>(on.multiprocessors())), 512, 0}, detail::read_words,
           memory.data(), count, out.data());
    check(cudaEventRecord(end, on.stream()), "cuda::read_bandwidth");
    check(cudaEventSynchronize(end), "cuda::read_bandwidth");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end), "cuda::read_bandwidth");
    best = std::min(best, milliseconds);
  }
  static_cast<void>(cudaEventDestroy(begin));
  static_cast<void>(cudaEventDestroy(end));
  return static_cast<double>(bytes) / (static_cast<double>(best) * 1e-3);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
