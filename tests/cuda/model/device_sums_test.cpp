// Sums of outer products kept on the device against plain sums in double.
//
// Tolerance: n products summed in float, each rounded at most once before: (n + 2) 2^-24 of the sum of magnitudes.
#include "cuda/weights.hpp"

#include <slimtrim/cuda/model/device_sums.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace cuda_device_sums_test {

using namespace slimtrim;

namespace {

// H += f² x xᵀ for rows of[i] of X, and the magnitudes of what was added.
void add_plainly(tensor<bfloat16, 2> const& X, index_t d, std::vector<std::int32_t> const& of,
                 std::vector<float> const& factors, std::vector<double>& H, std::vector<double>& size) {
  for (std::size_t i = 0; i < of.size(); ++i)
    for (index_t a = 0; a < d; ++a)
      for (index_t b = 0; b < d; ++b) {
        double const f = factors.empty() ? 1.0 : static_cast<double>(factors[i]);
        double const x = static_cast<double>(static_cast<float>(X(of[i], a))),
                     y = static_cast<double>(static_cast<float>(X(of[i], b)));
        H[static_cast<std::size_t>(a * d + b)] += f * x * f * y;
        size[static_cast<std::size_t>(a * d + b)] += std::abs(f * x * f * y);
      }
}

void check(matrix_view<float const> found, std::vector<double> const& expected, std::vector<double> const& size, index_t n) {
  index_t const d = found.extent(0);
  for (index_t a = 0; a < d; ++a)
    for (index_t b = 0; b < d; ++b) {
      auto const at = static_cast<std::size_t>(a * d + b);
      // Scaling rounds twice more: once for each of the two factors.
      REQUIRE(std::abs(static_cast<double>(found(a, b)) - expected[at]) <= static_cast<double>(n + 4) * 0x1p-24 * size[at] + 1e-30);
    }
}

}  // namespace

TEST_CASE("device_sums: rows as they are, picked ones and scaled ones, several matrices, added when collected") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  index_t const d = 72, n = 37;
  auto const X = cuda_tests::random_halves(n, 80, 3);  // wider than the sum
  auto const on_device = as_const(columns(device.upload_matrix<bfloat16>(X), 0, d));
  std::vector<std::int32_t> const all = [&] {
    std::vector<std::int32_t> rows;
    for (index_t i = 0; i < n; ++i) rows.push_back(static_cast<std::int32_t>(i));
    return rows;
  }();
  std::vector<std::int32_t> const some{5, 0, 36, 5};
  std::vector<float> const factors{0.5F, -2.0F, 0.0F, 1e-3F};
  tensor<float, 2> first(d, d), second(d, d);
  first.fill(1.0F);
  second.fill(0.0F);
  std::vector<double> one(static_cast<std::size_t>(d * d), 1.0), one_size = one, two(one.size(), 0.0), two_size = two;
  cuda::device_sums sums;
  auto const* const rows = device.keep<std::int32_t>(some.data(), 4);
  auto const* const scales = device.keep<float>(factors.data(), 4);
  sums.add<bfloat16>(on, on_device, n, {}, first.view());
  sums.add<bfloat16>(on, on_device, 4, {rows, nullptr}, first.view());
  sums.add<bfloat16>(on, on_device, 4, {rows, scales}, second.view());
  sums.add<bfloat16>(on, on_device, 0, {}, second.view());
  for (float const value : {first(0, 0), first(3, 1)}) CHECK(value == 1.0F);  // nothing has come yet
  add_plainly(X, d, all, {}, one, one_size);
  add_plainly(X, d, some, {}, one, one_size);
  add_plainly(X, d, some, factors, two, two_size);
  sums.collect(on);
  check(as_const(first.view()), one, one_size, n + 5);
  check(as_const(second.view()), two, two_size, 4);
  auto const kept = first.clone();
  sums.collect(on);  // and only once
  for (index_t i = 0; i < d * d; ++i) REQUIRE(first.view().data[i] == kept.view().data[i]);
  tensor<float, 2> wrong(d, d + 1);
  CHECK_THROWS_AS(sums.add<bfloat16>(on, on_device, n, {}, wrong.view()), error);
}

}  // namespace cuda_device_sums_test
