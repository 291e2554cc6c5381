// Sums by expert on the device: where fields and tables lie, that they add up from call to call, and that they start at
// 0.
#include "cuda/support.hpp"

#include <slimtrim/cuda/expert_sums.cuh>
#include <doctest/doctest.h>

#include <vector>

namespace cuda_expert_sums_test {

using namespace slimtrim;
using cuda::detail::expert_sum_memory;
using cuda::detail::expert_sums;

namespace {

// A block an expert: two fields, then two tables, of which the second has the element (j, i) only for i <= j.
static __global__ void add_all(expert_sums out) {
  index_t const j = blockIdx.x;
  if (threadIdx.x != 0) return;
  double const at = static_cast<double>(j);
  out.add(0, j, 1 + at);
  out.add(1, j, 100 * at);
  for (index_t i = 0; i < out.experts; ++i) out.add_pair(2, 0, j, i, 1000 * at + static_cast<double>(i));
  for (index_t i = 0; i <= j; ++i) out.add_pair(2, 1, j, i, 0.5);
}

void check(index_t experts) {
  CAPTURE(experts);
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  expert_sum_memory memory(on, experts, 2, 2, "test");
  CHECK(memory.experts() == experts);
  for (int calls : {0, 1, 3}) {
    memory.clear(on);
    for (int i = 0; i < calls; ++i)
      cuda::launch(on.stream(), {dim3(static_cast<unsigned>(experts)), 32, 0}, add_all, memory.view());
    std::vector<double> first{7}, second, whole, half;  // what a result holds before does not matter
    memory.download(on, {&first, &second}, {&whole, &half});
    auto const n = static_cast<std::size_t>(experts);
    REQUIRE(first.size() == n);
    REQUIRE(second.size() == n);
    REQUIRE(whole.size() == n * n);
    REQUIRE(half.size() == n * n);
    for (std::size_t j = 0; j < n; ++j) {
      CHECK(first[j] == calls * (1 + static_cast<double>(j)));
      CHECK(second[j] == calls * 100 * static_cast<double>(j));
      for (std::size_t i = 0; i < n; ++i) {
        REQUIRE(whole[j * n + i] == calls * (1000 * static_cast<double>(j) + static_cast<double>(i)));
        REQUIRE(half[j * n + i] == (i <= j ? 0.5 * calls : 0.0));
      }
    }
  }
}

}  // namespace

TEST_CASE("expert_sums: fields and tables, cleared and added to") {
  for (index_t experts : {1, 17, 60}) check(experts);
}

TEST_CASE("expert_sums: numbers of experts that no layer has are refused in the owner's name") {
  cuda_tests::device_memory device;
  for (index_t experts : {0, 8193})
    CHECK_THROWS_WITH_AS(expert_sum_memory(device.backend().on(), experts, 2, 0, "cuda::owner"),
                         "cuda::owner: experts: expected 1 .. 8192", error);
}

}  // namespace cuda_expert_sums_test
