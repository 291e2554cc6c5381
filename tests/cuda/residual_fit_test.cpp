// Moments of a fit on the device against the host's, member by member.
//
// Tolerance: both sum floats in float, in orders of their own: n products, (n + 2) 2^-24 of the sum of magnitudes each, with n at
// most 90; systems are solved in double with a condition below 1e3, so a change differs by 1e3 of that.
#include "cuda/support.hpp"

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/residual_fit.cuh>
#include <slimtrim/recovery/residual_fit.hpp>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace cuda_residual_fit_test {

using namespace slimtrim;

namespace {

constexpr double rounding = 92 * 0x1p-24;

matrix<float> random_rows(index_t rows, index_t columns, std::uint64_t seed) {
  matrix<float> x(rows, columns);
  for (index_t i = 0; i < rows * columns; ++i)
    x.view().data[i] = static_cast<float>(normal_at(seed, 4, static_cast<std::uint64_t>(i)));
  return x;
}

std::vector<float> values(cuda::context& on, device_matrix<float const> from) {
  return cuda::values_on_host(on.stream(), from.data, from.size());
}

// Distance relative to the size of `expected`.
double distance(std::vector<float> const& found, matrix<float> const& expected) {
  REQUIRE(static_cast<index_t>(found.size()) == expected.view().size());
  double error = 0, size = 1e-30;
  for (std::size_t i = 0; i < found.size(); ++i) {
    double const e = static_cast<double>(expected.view().data[i]), d = static_cast<double>(found[i]) - e;
    error += d * d;
    size += e * e;
  }
  return std::sqrt(error / size);
}

// The same tokens, in batches of uneven size, on both sides.
struct both_moments {
  residual_moments host;
  cuda::device_moments device;

  both_moments(cuda_tests::device_memory& memory, index_t in, index_t out, index_t tokens, std::uint64_t seed)
      : host(in, out), device(memory.backend().on(), in, out) {
    reference_backend const reference;
    for (index_t const n : {tokens / 3, index_t{0}, tokens - tokens / 3}) {
      auto const Z = random_rows(n, in, seed + 1);
      auto E = random_rows(n, out, seed + 2);
      for (index_t t = 0; t < n; ++t)  // something to find
        for (index_t j = 0; j < std::min(in, out); ++j) E(t, j) += 0.7F * Z(t, j);
      host.add(reference, Z.view(), E.view());
      device.add(memory.backend().on(), as_const(memory.upload_matrix<float>(Z)), as_const(memory.upload_matrix<float>(E)));
      seed += 10;
    }
  }
};

}  // namespace

TEST_CASE("device_moments: sums, errors, solutions and steps back are the host's") {
  for (auto const& [in, out] : {std::pair<index_t, index_t>{33, 20}, {64, 70}, {1, 3}}) {
    CAPTURE(in);
    cuda_tests::device_memory memory;
    auto& on = memory.backend().on();
    reference_backend const reference;
    both_moments both(memory, in, out, 90, 1), others(memory, in, out, 60, 2);
    auto const agree = [&] {
      CHECK(distance(values(on, both.device.gram()), both.host.gram) < rounding);
      CHECK(distance(values(on, both.device.cross()), both.host.cross) < rounding);
      CHECK(both.device.energy == doctest::Approx(both.host.energy).epsilon(rounding));
    };
    agree();
    CHECK(both.device.mean_diagonal(on) == doctest::Approx(both.host.mean_diagonal(reference)).epsilon(rounding));
    CHECK(both.device.finite(on));
    cuda::device_values change;
    matrix<float> expected;
    CHECK(change.empty());
    double const lambda = 0.1 * both.host.mean_diagonal(reference);
    REQUIRE(both.device.solve(on, lambda, change));
    REQUIRE(both.host.solve(reference, lambda, expected));
    CHECK(distance(values(on, as_const(change.view())), expected) < 1e3 * rounding);
    double const after = both.host.error_after(reference, expected);
    CHECK(after < both.host.energy);
    CHECK(both.device.error_after(on, change) == doctest::Approx(after).epsilon(1e3 * rounding));
    both.device.take_back(on, change);
    both.host.take_back(reference, expected);
    CHECK(distance(values(on, both.device.cross()), both.host.cross) < 1e3 * rounding);
    CHECK(both.device.energy == doctest::Approx(both.host.energy).epsilon(1e3 * rounding));
    both.device.add(on, others.device);
    both.host.add(reference, others.host);
    CHECK(distance(values(on, both.device.gram()), both.host.gram) < rounding);
  }
}

TEST_CASE("device_moments: the choice of a ridge is the host's, and nothing is changed for nothing") {
  cuda_tests::device_memory memory;
  auto& on = memory.backend().on();
  reference_backend const reference;
  both_moments fitted(memory, 24, 16, 80, 5), judging(memory, 24, 16, 70, 6);
  residual_fit_options const options{.ridges = {3.0, 0.1, 1e-3}};
  cuda::device_values change;
  matrix<float> expected;
  auto const found = slimtrim::detail::choose_change(on, fitted.device, &judging.device, options, change);
  auto const wanted = slimtrim::detail::choose_change(reference, fitted.host, &judging.host, options, expected);
  CHECK(found.changed);
  CHECK(found.ridge == wanted.ridge);
  CHECK(found.held_out_error == doctest::Approx(wanted.held_out_error).epsilon(1e3 * rounding));
  CHECK(found.error == doctest::Approx(wanted.error).epsilon(1e3 * rounding));
  CHECK(distance(values(on, as_const(change.view())), expected) < 1e3 * rounding);

  // No tokens, and a residual that is not a number.
  cuda::device_moments none(on, 8, 4);
  cuda::device_values untouched;
  CHECK_FALSE(slimtrim::detail::choose_change(on, none, static_cast<cuda::device_moments*>(nullptr), options, untouched).changed);
  CHECK(untouched.empty());
  auto const Z = random_rows(3, 8, 9);
  auto E = random_rows(3, 4, 10);
  E(1, 2) = std::numeric_limits<float>::quiet_NaN();
  auto const z = memory.matrix<float>(3, 8), e = memory.matrix<float>(3, 4);
  cuda::copy_to_device(on.stream(), Z.view().data, Z.view().size(), z.data);
  cuda::copy_to_device(on.stream(), E.view().data, E.view().size(), e.data);
  none.add(on, as_const(z), as_const(e));
  CHECK_FALSE(none.finite(on));
  CHECK_FALSE(slimtrim::detail::choose_change(on, none, static_cast<cuda::device_moments*>(nullptr), options, untouched).changed);
  CHECK_THROWS_AS(none.add(on, as_const(z), as_const(z)), error);
  CHECK_THROWS_AS(none.add(on, as_const(rows(z, 0, 2)), as_const(e)), error);
}

}  // namespace cuda_residual_fit_test
