// Sums of a warp and of a block: every thread has them, and whole numbers make them exact.
#include "cuda/support.hpp"

#include <slimtrim/cuda/reduce.cuh>
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

namespace cuda_reduce_test {

using namespace slimtrim;

namespace {

// to: [blocks, threads]: what each thread was told. Twice through the same memory, as callers do.
template <class T>
__global__ void sum_up(T const* from, T* warps, T* blocks, T* again) {
  __shared__ T slots[32];
  index_t const at = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  warps[at] = cuda::sum_of_warp(from[at]);
  blocks[at] = cuda::sum_of_block(from[at], slots);
  again[at] = cuda::sum_of_block(T{2} * from[at], slots);
}

// Different whole numbers, whose sums stay below 2^24, so
template <class T>
void check(unsigned threads) {
  CAPTURE(threads);
  cuda_tests::device_memory device;
  index_t const blocks = 3, count = blocks * static_cast<index_t>(threads);
  std::vector<T> values;
  for (index_t i = 0; i < count; ++i) values.push_back(static_cast<T>(1 + (i * i * 7919 + i) % 1021));
  auto const warps = device.vector<T>(count), all = device.vector<T>(count), again = device.vector<T>(count);
  cuda::launch(device.backend().on().stream(), {dim3(3), threads, 0}, sum_up<T>, device.keep<T>(values.data(), count),
               warps.data, all.data, again.data);
  auto const by_warp = device.download<T>(warps), by_block = device.download<T>(all), twice = device.download<T>(again);
  for (index_t i = 0; i < count; ++i) {
    auto const sum = [&](index_t a_group) {
      std::int64_t total = 0;
      for (index_t k = i / a_group * a_group; k < i / a_group * a_group + a_group; ++k)
        total += static_cast<std::int64_t>(values[static_cast<std::size_t>(k)]);
      return total;
    };
    auto const at = static_cast<std::size_t>(i);
    REQUIRE(static_cast<std::int64_t>(by_warp[at]) == sum(32));
    REQUIRE(static_cast<std::int64_t>(by_block[at]) == sum(static_cast<index_t>(threads)));
    REQUIRE(static_cast<std::int64_t>(twice[at]) == 2 * sum(static_cast<index_t>(threads)));
  }
}

}  // namespace

TEST_CASE("reduce: one warp, several, and as many as a block can have") {
  for (unsigned threads : {32U, 96U, 256U, 1024U}) {
    check<float>(threads);
    check<double>(threads);
    check<int>(threads);
  }
}

}  // namespace cuda_reduce_test
