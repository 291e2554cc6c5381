// Stacked weights: what is refused, and errors over more rows than one strip against plain loops.
#include "cuda/support.hpp"

#include <slimtrim/cuda/elementwise.cuh>
#include <slimtrim/cuda/stack.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace cuda_stack_test {

using namespace slimtrim;

namespace {

struct problem {
  std::vector<device_matrix<float const>> weights{};
  device_matrix<float const> hessian{};
};

device_matrix<float const> filled(cuda_tests::device_memory& device, index_t rows, index_t columns, float value) {
  std::vector<float> const values(static_cast<std::size_t>(rows * columns), value);
  return device_matrix<float const>(device.keep<float>(values.data(), rows * columns), rows, columns);
}

// changed - W for a change to the row's number in the stack, a sixteenth of it.
struct change_to_row {
  device_matrix<float const> W;
  index_t first;
  device_matrix<float> D;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { D(i, j) = static_cast<float>(first + i) / 16.0F - W(i, j); }
};

}  // namespace

TEST_CASE("cuda stack: rows add up, and problems must have the same shape") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  problem const one{{filled(device, 3, 4, 1), filled(device, 2, 4, 2)}, filled(device, 4, 4, 0)};
  auto const shape = cuda::detail::shape_of_stacks<float>(on, std::vector<problem>{one, one}, "test");
  CHECK(shape.problems == 2);
  CHECK(shape.rows == 5);
  CHECK(shape.columns == 4);
  auto const refused = [&](problem const& other) {
    CHECK_THROWS_AS(static_cast<void>(cuda::detail::shape_of_stacks<float>(on, std::vector<problem>{one, other}, "test")), error);
  };
  refused({{filled(device, 3, 4, 1)}, one.hessian});
  refused({{filled(device, 3, 4, 1), filled(device, 2, 5, 1)}, one.hessian});
  refused({one.weights, filled(device, 3, 3, 0)});
  CHECK_THROWS_AS(static_cast<void>(cuda::detail::shape_of_stacks<float>(on, std::vector<problem>{problem{}}, "test")), error);
  problem const broken{{one.weights[0], filled(device, 2, 4, std::numeric_limits<float>::infinity())}, one.hessian};
  CHECK_THROWS_AS(static_cast<void>(cuda::detail::shape_of_stacks<float>(on, std::vector<problem>{broken}, "test")), input_error);
}

TEST_CASE("cuda stack: errors of more rows than a strip, the second weight's behind the first's") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  // H = 2 I + 1: d H dᵀ of a row of equal elements d is c d² (2 + c), here exact in float but for the last bits of d².
  constexpr index_t c = 4, first = 2050, second = 3;
  std::vector<float> h(static_cast<std::size_t>(c * c), 1.0F);
  for (index_t i = 0; i < c; ++i) h[static_cast<std::size_t>(i * c + i)] = 3.0F;
  device_matrix<float const> const H(device.keep<float>(h.data(), c * c), c, c);
  std::vector<device_matrix<float const>> const weights{filled(device, first, c, 1), filled(device, second, c, -2)};
  auto const errors = device.vector<float>(first + second);
  cuda::detail::stack_errors<float>(
      on, weights, H,
      [&](device_matrix<float const> W, index_t row, device_matrix<float> D) {
        cuda::for_each_element(on, W.extent(0), c, false, change_to_row{W, row, D});
      },
      errors);
  device.backend().synchronise();
  auto const found = cuda::values_on_host(on.stream(), static_cast<float const*>(errors.data), first + second);
  for (index_t r = 0; r < first + second; ++r) {
    double const d = static_cast<double>(r) / 16 - (r < first ? 1.0 : -2.0), expected = c * d * d * (2 + c);
    // Eight products and their sums: (c + 4) roundings at most, of terms of one sign.
    REQUIRE(std::abs(static_cast<double>(found[static_cast<std::size_t>(r)]) - expected) <= 8 * 0x1p-24 * expected * 1.01);
  }
}

}  // namespace cuda_stack_test
