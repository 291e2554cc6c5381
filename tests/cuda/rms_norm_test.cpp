// Addition and normalisation against the plain formula in double.
#include "cuda/support.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/rms_norm.cuh>
#include <doctest/doctest.h>

#include <cmath>

namespace cuda_rms_norm_test {

using namespace slimtrim;

namespace {

void check(index_t rows, index_t width, index_t padded, bool with_added) {
  cuda_tests::device_memory device;
  tensor<float, 2> X(rows, padded), added(rows, padded);
  std::vector<float> weight;
  for (index_t j = 0; j < width; ++j)
    weight.push_back(static_cast<float>(1 + 0.2 * normal_at(1, 1, static_cast<std::uint64_t>(j))));
  for (index_t i = 0; i < rows * padded; ++i) {
    X.view().data[i] = static_cast<float>(normal_at(1, 2, static_cast<std::uint64_t>(i)));
    added.view().data[i] = static_cast<float>(normal_at(1, 3, static_cast<std::uint64_t>(i)));
  }
  auto const x = device.upload_matrix<float>(X);
  auto const n = device.matrix<bfloat16>(rows, padded);
  device_matrix<float const> y;
  if (with_added) y = as_const(device.upload_matrix<float>(added));
  device_vector<float const> const w(device.keep<float>(weight.data(), width), width);
  cuda::add_and_normalise<bfloat16>(device.backend().on(), x, y, w, 1e-5, n);
  auto const stream = device.download<float>(x);
  auto const found = device.download<bfloat16>(n);
  for (index_t t = 0; t < rows; ++t) {
    double squares = 0;
    std::vector<double> sums;
    for (index_t j = 0; j < width; ++j) {
      sums.push_back(static_cast<double>(X(t, j)) + (with_added ? static_cast<double>(added(t, j)) : 0.0));
      squares += sums.back() * sums.back();
    }
    double const rms = std::sqrt(squares / static_cast<double>(width) + 1e-5);
    for (index_t j = 0; j < padded; ++j) {
      auto const at = static_cast<std::size_t>(t * padded + j);
      if (j >= width) {
        REQUIRE(found[at].bits == 0);
        REQUIRE(stream[at] == X(t, j));
        continue;
      }
      auto const c = static_cast<std::size_t>(j);
      REQUIRE(static_cast<double>(stream[at]) == doctest::Approx(sums[c]).epsilon(1e-6));
      // One rounding to 8 bits, half a unit of which is 2^-8 at most, and float before it.
      double const expected = sums[c] / rms * static_cast<double>(weight[c]);
      REQUIRE(std::abs(static_cast<double>(static_cast<float>(found[at])) - expected) <=
              0.0039063 * std::abs(expected) + 1e-6);
    }
  }
}

}  // namespace

TEST_CASE("rms_norm: with and without an addition, padded and not") {
  check(3, 128, 128, true);
  check(2, 128, 128, false);
  check(2, 100, 128, true);
  check(1, 700, 704, true);
  check(1, 8200, 8256, true);  // wider than a thread keeps in registers
}

TEST_CASE("rms_norm: no rows, a row of zeros, shapes that do not fit") {
  check(0, 64, 64, true);
  cuda_tests::device_memory device;
  tensor<float, 2> zeros(1, 64);
  zeros.fill(0.0F);
  std::vector<float> const weight(64, 2.0F);
  auto const x = device.upload_matrix<float>(zeros);
  auto const n = device.matrix<bfloat16>(1, 64);
  device_vector<float const> const w(device.keep<float>(weight.data(), 64), 64);
  auto& on = device.backend().on();
  cuda::add_and_normalise<bfloat16>(on, x, {}, w, 1e-6, n);
  for (bfloat16 const value : device.download<bfloat16>(n)) CHECK(static_cast<float>(value) == 0.0F);
  CHECK_THROWS_AS(cuda::add_and_normalise<bfloat16>(on, columns(x, 0, 32), {}, w, 1e-6, n), error);
  CHECK_THROWS_AS(cuda::add_and_normalise<bfloat16>(on, x, {}, w, 1e-6, device.matrix<bfloat16>(2, 64)), error);
}

}  // namespace cuda_rms_norm_test
