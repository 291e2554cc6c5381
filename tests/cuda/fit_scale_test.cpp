// Scales of groups on the device against slimtrim::fit_scale, group by group.
#include "cuda/support.hpp"

#include <slimtrim/cuda/fit_scale.cuh>
#include <doctest/doctest.h>

#include <limits>
#include <vector>

namespace cuda_fit_scale_test {

using namespace slimtrim;

namespace {

// sum of weight * (w - Q(w))^2, in double.
double error_of(uniform_grid const& grid, float const* w, float const* weights, index_t n, scale_and_zero at) {
  double sum = 0;
  for (index_t i = 0; i < n; ++i) {
    double const off = static_cast<double>(w[i]) - static_cast<double>(grid.decode(grid.encode(w[i], at), at));
    sum += static_cast<double>(weights[i]) * off * off;
  }
  return sum;
}

void check_scales(index_t rows, index_t columns, index_t group, uniform_grid grid, scale_rule rule) {
  cuda_tests::device_memory device;
  tensor<float, 2> W(rows, columns);
  std::vector<float> weights;
  for (index_t j = 0; j < columns; ++j)
    weights.push_back(static_cast<float>(0.1 + 4 * uniform_at(2, 0, static_cast<std::uint64_t>(j))));
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < columns; ++j)
      W(i, j) =
          i == 1 ? 0.0F
                 : static_cast<float>(0.1 * normal_at(1, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(j)));
  index_t const groups = ceil_div(columns, group);
  auto const scales = device.matrix<float>(rows, groups);
  auto const zeros = grid.symmetric ? device_matrix<std::uint8_t>{} : device.matrix<std::uint8_t>(rows, groups);
  cuda::scale_fit const fit{grid, group, rule, scale_type::bfloat16, {}};
  cuda::fit_scales<float>(device.backend().on(), as_const(device.upload_matrix<float>(W)), fit,
                          device_vector<float const>(device.keep<float>(weights.data(), columns), columns), scales,
                          zeros);
  device.backend().synchronise();
  auto const found = device.download<float>(scales);
  std::vector<std::uint8_t> found_zeros;
  if (!grid.symmetric) found_zeros = device.download<std::uint8_t>(zeros);
  std::vector<float> const ones(static_cast<std::size_t>(columns), 1.0F);
  for (index_t i = 0; i < rows; ++i)
    for (index_t g = 0; g < groups; ++g) {
      index_t const start = g * group, n = std::min(group, columns - start);
      float const* const w = &W(i, start);
      float const* const by = rule == scale_rule::weighted ? weights.data() + start : nullptr;
      auto const host = fit_scale(grid, w, n, scale_type::bfloat16, rule, by);
      auto const at = static_cast<std::size_t>(i * groups + g);
      scale_and_zero const mine{found[at], grid.symmetric ? grid.middle() : static_cast<int>(found_zeros[at])};
      CAPTURE(i);
      CAPTURE(g);
      if (rule == scale_rule::absmax) {
        CHECK(mine.scale == host.scale);
        CHECK(mine.zero == host.zero);
        continue;
      }
      // Candidates are judged by float sums of n terms: one that is chosen here and not there is as good but for their
      // rounding.
      float const* const judge = by != nullptr ? by : ones.data();
      double const expected = error_of(grid, w, judge, n, host);
      CHECK(error_of(grid, w, judge, n, mine) <= expected + 1e-5 * expected + 1e-12);
    }
}

}  // namespace

TEST_CASE("cuda fit_scale: absmax to the bit, searched scales as good as the host's") {
  for (auto rule : {scale_rule::absmax, scale_rule::mse, scale_rule::weighted})
    for (uniform_grid grid : {uniform_grid{4, true}, uniform_grid{4, false}, uniform_grid{3, true}}) {
      check_scales(5, 100, 32, grid, rule);  // a last group of four columns
      check_scales(3, 17, 17, grid, rule);
      check_scales(2, 400, 300, grid, rule);  // more than the lanes hold
      check_scales(2, 3, 1, grid, rule);
    }
  check_scales(0, 8, 4, {}, scale_rule::mse);
}

TEST_CASE("cuda fit_scale: a group that is not finite is reported and gets the scale 1") {
  cuda_tests::device_memory device;
  tensor<float, 2> W(1, 8);
  W.fill(0.5F);
  W(0, 5) = std::numeric_limits<float>::quiet_NaN();
  auto const scales = device.matrix<float>(1, 2);
  cuda::scale_fit fit;
  fit.group = 4;
  fit.rule = scale_rule::mse;
  cuda::fit_scales<float>(device.backend().on(), as_const(device.upload_matrix<float>(W)), fit, {}, scales, {});
  CHECK_THROWS_AS(device.backend().synchronise(), numeric_error);
  CHECK(device.download<float>(scales)[1] == 1.0F);
}

}  // namespace cuda_fit_scale_test
