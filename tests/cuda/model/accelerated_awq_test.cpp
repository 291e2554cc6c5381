// AWQ of host matrices handed to the device, against the host's, and what is left to the host.
#include "cuda/support.hpp"

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/model/accelerated_awq.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace cuda_accelerated_awq_test {

using namespace slimtrim;

namespace {

tensor<float, 2> random(index_t rows, index_t columns, std::uint64_t stream) {
  tensor<float, 2> x(rows, columns);
  for (index_t i = 0; i < rows * columns; ++i)
    x.view().data[i] = static_cast<float>(normal_at(7, stream, static_cast<std::uint64_t>(i)));
  return x;
}
// Some channels far more active than others, or there would be nothing to scale.
tensor<float, 2> gram(index_t tokens, index_t columns, std::uint64_t stream) {
  tensor<float, 2> X = random(tokens, columns, stream), H(columns, columns);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t j = 0; j < columns; ++j) X(t, j) *= std::exp2(static_cast<float>(j % 7) - 3.0F);
  H.fill(0.0F);
  reference_backend{}.gram_update(1.0F, as_const(X.view()), H.view());
  return H;
}

awq_options grouped(index_t group) {
  awq_options options;
  options.groups = {group_kind::group, group};
  options.ratios = 6;
  return options;
}

}  // namespace

TEST_CASE("accelerated_awq: scales of members that differ in size, rounding and Hessian are the host's") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  index_t const c = 128;
  tensor<float, 2> const W = random(40, c, 1), V = random(24, c, 2), U = random(24, c, 3), H = gram(300, c, 4), J = gram(200, c, 5);
  quantize_options fine;
  fine.grid = {3, true};
  fine.groups = {group_kind::group, 32};
  // Two of them share a Hessian, as gate and up of an expert do.
  std::vector<awq_member<float>> const members{{W.view(), H.view()}, {V.view(), J.view(), &fine}, {U.view(), J.view()}};
  std::vector<index_t> tied;
  for (index_t j = 0; j < c; ++j) tied.push_back(j / 2 * 2);
  for (std::vector<index_t> const& ties : {std::vector<index_t>(), tied}) {
    auto const found = cuda::search_awq_scales_of_host(on, members, grouped(64), ties);
    REQUIRE(found.has_value());
    awq_scales const expected = search_awq_scales(reference_backend{}, members, grouped(64), ties);
    CHECK(expected.ratio > 0);
    // Neighbours of the same exponent differ by far more than the rounding of products to 11 bits.
    CHECK(found->ratio == expected.ratio);
    CHECK(found->error == doctest::Approx(expected.error).epsilon(2e-3));
    CHECK(found->error_plain == doctest::Approx(expected.error_plain).epsilon(2e-3));
    REQUIRE(found->scales.size() == expected.scales.size());
    for (std::size_t j = 0; j < found->scales.size(); ++j)
      CHECK(found->scales[j] == doctest::Approx(expected.scales[j]).epsilon(1e-5));
  }
}

TEST_CASE("accelerated_awq: clipped ranges are the host's, judged by the same Hessian and by another") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  tensor<float, 2> const W = random(24, 128, 1), H = gram(300, 128, 2), J = gram(200, 128, 3);
  std::vector<float> scales;
  for (int j = 0; j < 128; ++j) scales.push_back(std::exp2(static_cast<float>(j % 3) - 1.0F));
  for (matrix_view<float const> const judge : {matrix_view<float const>(), J.view()}) {
    index_t kept = -1, expected_kept = -1;
    auto const found = cuda::awq_of_host_matrix(on, W.view(), H.view(), scales, grouped(64), judge, &kept);
    REQUIRE(found.has_value());
    quantized_matrix const expected = awq(reference_backend{}, W.view(), H.view(), scales, grouped(64), judge, &expected_kept);
    CHECK(std::abs(kept - expected_kept) <= 1);
    tensor<float, 2> a(24, 128), b(24, 128);
    dequantize(found->view(), a.view());
    dequantize(expected.view(), b.view());
    double apart = 0, size = 0;
    for (index_t i = 0; i < a.view().size(); ++i) {
      apart += std::pow(static_cast<double>(a.view().data[i] - b.view().data[i]), 2);
      size += std::pow(static_cast<double>(b.view().data[i]), 2);
    }
    // Sums of another order now and then choose another of two factors that are as good.
    CHECK(apart < 1e-3 * size);
  }
}

TEST_CASE("accelerated_awq: what is left to the host") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  tensor<float, 2> const W = random(4, 256, 1), H = gram(300, 256, 2), small = gram(100, 64, 3);
  std::vector<awq_member<float>> members{{W.view(), H.view()}};
  awq_options options = grouped(64);
  CHECK_FALSE(cuda::search_awq_scales_of_host(on, {}, options, {}).has_value());
  CHECK_FALSE(cuda::search_awq_scales_of_host(on, {{columns(W.view(), 0, 64), small.view()}}, options, {}).has_value());
  CHECK_FALSE(cuda::awq_of_host_matrix(on, columns(W.view(), 0, 64), small.view(), {}, options, {}, nullptr).has_value());
  options.groups.size = 256;
  CHECK_FALSE(cuda::awq_of_host_matrix(on, W.view(), H.view(), {}, options, {}, nullptr).has_value());
  options.clip = false;
  CHECK(cuda::awq_of_host_matrix(on, W.view(), H.view(), {}, options, {}, nullptr).has_value());
  options.groups.kind = group_kind::tensor;
  CHECK_FALSE(cuda::awq_of_host_matrix(on, W.view(), H.view(), {}, options, {}, nullptr).has_value());
  CHECK_FALSE(cuda::search_awq_scales_of_host(on, members, options, {}).has_value());
  CHECK_THROWS_AS((void)cuda::search_awq_scales_of_host(on, {{W.view(), small.view()}}, grouped(64), {}), error);
  CHECK_THROWS_AS((void)cuda::awq_of_host_matrix(on, W.view(), small.view(), {}, grouped(64), {}, nullptr), error);
}

}  // namespace cuda_accelerated_awq_test
