// A block's logits against dots in double, from memory and from shared memory, whatever the loads in flight.
#include "cuda/weights.hpp"

#include <slimtrim/cuda/router_logits.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace cuda_router_logits_test {

using namespace slimtrim;

namespace {

// A block a token. logits: [tokens, experts].
template <int Threads, int Unroll>
__global__ void logits_of_tokens(device_matrix<bfloat16 const> X, device_matrix<bfloat16 const> router,
                                 device_matrix<float> logits) {
  auto const* const x = reinterpret_cast<cuda::words4 const*>(X.data + blockIdx.x * X.stride(0));
  cuda::detail::router_logits<bfloat16, Threads, Unroll>(
      router, [&](int c) { return x[c]; }, logits.data + blockIdx.x * logits.stride(0));
}

template <int Threads, int Unroll>
std::vector<float> check(index_t tokens, index_t experts, index_t hidden) {
  CAPTURE(experts);
  CAPTURE(hidden);
  cuda_tests::device_memory device;
  auto const X = cuda_tests::random_halves(tokens, hidden, 1), router = cuda_tests::random_halves(experts, hidden, 2);
  auto const logits = device.matrix<float>(tokens, experts);
  cuda::launch(device.backend().on().stream(), {dim3(static_cast<unsigned>(tokens)), Threads, 0},
               logits_of_tokens<Threads, Unroll>, as_const(device.upload_matrix<bfloat16>(X)),
               as_const(device.upload_matrix<bfloat16>(router)), logits);
  auto const found = device.download<float>(logits);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t j = 0; j < experts; ++j) {
      double sum = 0, size = 0;
      for (index_t c = hidden - 1; c >= 0; --c) {
        double const part =
            static_cast<double>(static_cast<float>(X(t, c))) * static_cast<double>(static_cast<float>(router(j, c)));
        sum += part;
        size += std::abs(part);
      }
      // Products of two 16-bit numbers are exact in float; at most as many additions as columns.
      REQUIRE(std::abs(static_cast<double>(found[static_cast<std::size_t>(t * experts + j)]) - sum) <=
              static_cast<double>(hidden) * 0x1p-24 * size);
    }
  return found;
}

}  // namespace

TEST_CASE("router_logits: experts and columns beside whole warps and blocks") {
  for (index_t experts : {1, 8, 17, 60})
    for (index_t hidden : {8, 248, 256, 264, 1032}) check<256, 4>(2, experts, hidden);
  check<32, 1>(17, 3, 64);
}

TEST_CASE("router_logits: the same bits whatever the threads and the loads in flight") {
  auto const one = check<256, 4>(3, 9, 520), other = check<256, 8>(3, 9, 520), few = check<64, 1>(3, 9, 520);
  CHECK(one == other);
  CHECK(one == few);
}

}  // namespace cuda_router_logits_test
