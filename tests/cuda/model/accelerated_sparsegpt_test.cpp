// SparseGPT of a host matrix handed to the device, against the host's, and what is left to the host.
#include "cuda/support.hpp"

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/cuda/model/accelerated_sparsegpt.cuh>
#include <slimtrim/slim/sparse/magnitude.hpp>
#include <doctest/doctest.h>

#include "slim/support.hpp"

namespace cuda_accelerated_sparsegpt_test {

using namespace slimtrim;
using slimtrim_test::gram_of;
using slimtrim_test::random_input;
using slimtrim_test::random_weight;

TEST_CASE("accelerated_sparsegpt: the host's result, by pattern, by rate, by a mask and with a grid") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  matrix<float> const W = random_weight(24, 128, 1), H = gram_of(random_input(300, 128, 2));
  mask const given = magnitude_mask(reference_backend{}, W, {.rate = 0.5});
  sparsegpt_options with_mask, with_grid{.pattern = {.keep = 2, .of = 4}};
  with_mask.given = &given;
  with_grid.quantize = quantize_options{.groups = {group_kind::group, 64}};
  for (sparsegpt_options const& options :
       {sparsegpt_options{.pattern = {.keep = 2, .of = 4}}, sparsegpt_options{.pattern = {.rate = 0.5}}, with_mask, with_grid}) {
    auto const found = cuda::sparsegpt_of_host_matrix(on, W.view(), H.view(), options);
    REQUIRE(found.has_value());
    sparsegpt_result const expected = sparsegpt(reference_backend{}, W, H.view(), options);
    CHECK(found->report.second_order);
    // Sums of another order now and then turn a near-tie.
    CHECK(found->report.error == doctest::Approx(expected.report.error).epsilon(0.01));
    CHECK(popcount(found->kept.view()) == popcount(expected.kept.view()));
    CHECK(found->quantized.has_value() == options.quantize.has_value());
  }
}

TEST_CASE("accelerated_sparsegpt: what is left to the host") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  matrix<float> const W = random_weight(4, 128, 1), H = gram_of(random_input(200, 128, 2)), small = gram_of(random_input(200, 64, 2));
  sparsegpt_options const two_of_four{.pattern = {.keep = 2, .of = 4}};
  auto const taken = [&](matrix_view<float const> weight, matrix_view<float const> hessian, sparsegpt_options const& options) {
    return cuda::sparsegpt_of_host_matrix(on, weight, hessian, options).has_value();
  };
  CHECK(taken(W.view(), H.view(), two_of_four));
  CHECK_FALSE(taken(columns(W.view(), 0, 64), small.view(), two_of_four));
  CHECK_FALSE(taken(W.view(), H.view(), {.pattern = {.keep = 8, .of = 16}}));
  CHECK_FALSE(taken(W.view(), H.view(), {.pattern = {.keep = 2, .of = 4}, .block = 64}));
  CHECK_FALSE(taken(W.view(), H.view(), {.quantize = quantize_options{.groups = {group_kind::tensor, 0}}}));
  matrix<float> nothing(128, 128);
  nothing.fill(0.0F);
  CHECK_FALSE(taken(W.view(), nothing.view(), two_of_four));
}

}  // namespace cuda_accelerated_sparsegpt_test
