// Sums over routed tokens on the device against the host's accumulators, from the same routing.
#include "cuda/routing.hpp"

#include <slimtrim/cuda/router_statistics.cuh>
#include <doctest/doctest.h>

#include <cmath>

namespace cuda_router_statistics_test {

using namespace slimtrim;

TEST_CASE("cuda router_statistics: the host's sums over two batches") {
  // All sums are of at most 700 doubles from floats: 700 roundings of 2^-53.
  auto const close = [](double found, double expected) {
    return std::abs(found - expected) <= 1e-13 * (1 + std::abs(expected));
  };
  for (index_t experts : {1, 8, 33})
    for (index_t tokens : {0, 1, 300}) {
      cuda_tests::device_memory device;
      auto& on = device.backend().on();
      router_statistics host(experts), mine(experts);
      cuda::router_accumulator sums(on, experts);
      for (std::uint64_t batch = 0; batch < 2; ++batch) {
        cuda_tests::routed const r(tokens, experts, 3, 17 + batch);
        host.add(r.view());
        sums.add(on, cuda_tests::upload_routing(device, r));
      }
      mine.add(sums.sums(on));
      host.commit_window();
      mine.commit_window();
      CHECK(mine.tokens() == host.tokens());
      for (index_t j = 0; j < experts; ++j) {
        CHECK(mine.count(j) == host.count(j));
        CHECK(close(mine.probability(j), host.probability(j)));
        CHECK(close(mine.weight(j), host.weight(j)));
        CHECK(close(mine.raw_weight(j), host.raw_weight(j)));
        CHECK(close(mine.renormalised_weight(j), host.renormalised_weight(j)));
        for (index_t i = 0; i < experts; ++i) {
          CHECK(mine.coactivation(j, i) == host.coactivation(j, i));
          CHECK(close(mine.probability_product(j, i), host.probability_product(j, i)));
        }
      }
    }
}

TEST_CASE("cuda router_statistics: parts that do not fit are refused") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  cuda::router_accumulator sums(on, 4);
  CHECK_THROWS_AS(sums.add(on, cuda_tests::upload_routing(device, cuda_tests::routed(3, 5, 2, 1))), error);
  CHECK_THROWS_AS(cuda::router_accumulator(on, 0), error);
  router_statistics host(3);
  CHECK_THROWS_AS(host.add(sums.sums(on)), error);
}

}  // namespace cuda_router_statistics_test
