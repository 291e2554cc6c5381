// Constant experts against a loop over experts first, tokens second.
#include "cuda/routing.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/novices.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace cuda_novices_test {

using namespace slimtrim;

namespace {

void check(index_t tokens, index_t slots, index_t hidden) {
  CAPTURE(tokens);
  index_t const experts = 6;
  cuda_tests::device_memory device;
  cuda_tests::routed const r(tokens, experts, slots, 5);
  tensor<float, 2> novices(experts, hidden), start(tokens, hidden);
  for (index_t i = 0; i < experts * hidden; ++i)
    novices.view().data[i] =
        i / hidden % 2 == 0 ? static_cast<float>(normal_at(2, 2, static_cast<std::uint64_t>(i))) : 0.0F;
  for (index_t i = 0; i < tokens * hidden; ++i)
    start.view().data[i] = static_cast<float>(normal_at(2, 3, static_cast<std::uint64_t>(i)));
  auto const Y = device.upload_matrix<float>(start);
  // Contiguous, as routing leaves them.
  cuda::add_novices(device.backend().on(), device.keep<std::int32_t>(r.indices.view().data, tokens * slots),
                    device.keep<float>(r.weights.view().data, tokens * slots), slots,
                    as_const(device.upload_matrix<float>(novices)), Y);
  auto const found = device.download<float>(Y);
  std::vector<double> sums, sizes;
  for (index_t i = 0; i < tokens * hidden; ++i) {
    sums.push_back(static_cast<double>(start.view().data[i]));
    sizes.push_back(std::abs(sums.back()));
  }
  for (index_t e = 0; e < experts; ++e)
    for (index_t t = 0; t < tokens; ++t)
      for (index_t s = 0; s < slots; ++s)
        for (index_t j = 0; j < hidden && r.indices(t, s) == e; ++j) {
          double const part = static_cast<double>(r.weights(t, s)) * static_cast<double>(novices(e, j));
          sums[static_cast<std::size_t>(t * hidden + j)] += part;
          sizes[static_cast<std::size_t>(t * hidden + j)] += std::abs(part);
        }
  // A product and an addition a slot, each rounded once.
  for (std::size_t i = 0; i < sums.size(); ++i)
    REQUIRE(std::abs(static_cast<double>(found[i]) - sums[i]) <= static_cast<double>(2 * slots) * 0x1p-24 * sizes[i]);
}

}  // namespace

TEST_CASE("novices: added by weight for the tokens that chose them, unused slots add nothing") {
  for (index_t tokens : {0, 1, 17}) check(tokens, 3, 70);
  check(33, 1, 8);
}

TEST_CASE("novices: another width is refused") {
  cuda_tests::device_memory device;
  CHECK_THROWS_WITH_AS(cuda::add_novices(device.backend().on(), nullptr, nullptr, 1,
                                         as_const(device.matrix<float>(2, 8)), device.matrix<float>(1, 9)),
                       "cuda::add_novices: columns of the result: expected 9, found 8", error);
}

}  // namespace cuda_novices_test
