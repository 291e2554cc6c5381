// GPTQ of a host matrix handed to the device, against the host's, and what is left to the host.
#include "cuda/support.hpp"

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/model/accelerated_gptq.cuh>
#include <doctest/doctest.h>

namespace cuda_accelerated_gptq_test {

using namespace slimtrim;

namespace {

tensor<float, 2> random(index_t rows, index_t columns, std::uint64_t stream) {
  tensor<float, 2> x(rows, columns);
  for (index_t i = 0; i < rows * columns; ++i)
    x.view().data[i] = static_cast<float>(normal_at(6, stream, static_cast<std::uint64_t>(i)));
  return x;
}
tensor<float, 2> gram(tensor<float, 2> const& X) {
  tensor<float, 2> H(X.extent(1), X.extent(1));
  H.fill(0.0F);
  reference_backend{}.gram_update(1.0F, X.view(), H.view());
  return H;
}

}  // namespace

TEST_CASE("accelerated_gptq: the host's result, judged by the same Hessian and by another") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  tensor<float, 2> const W = random(24, 128, 1), H = gram(random(300, 128, 2)), J = gram(random(200, 128, 3));
  gptq_options options;
  options.groups.kind = group_kind::group;
  options.groups.size = 64;
  for (matrix_view<float const> const judge : {matrix_view<float const>(), J.view()}) {
    auto const found = cuda::gptq_of_host_matrix(on, W.view(), H.view(), options, judge);
    REQUIRE(found.has_value());
    gptq_result const expected = gptq(reference_backend{}, W.view(), H.view(), options, judge);
    CHECK(found->report.second_order);
    // Sums of another order now and then round a weight the other way.
    CHECK(found->report.error == doctest::Approx(expected.report.error).epsilon(0.01));
    CHECK(found->report.error < found->report.error_rtn);
  }
}

TEST_CASE("accelerated_gptq: what is left to the host") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  tensor<float, 2> const W = random(4, 128, 1), H = gram(random(200, 128, 2)), small = gram(random(200, 64, 2));
  gptq_options options;
  options.groups.kind = group_kind::group;
  options.groups.size = 64;
  options.descent_passes = 1;
  CHECK_FALSE(cuda::gptq_of_host_matrix(on, W.view(), H.view(), options, {}).has_value());
  options.descent_passes = 0;
  CHECK_FALSE(cuda::gptq_of_host_matrix(on, columns(W.view(), 0, 64), small.view(), options, {}).has_value());
  options.groups.kind = group_kind::tensor;
  CHECK_FALSE(cuda::gptq_of_host_matrix(on, W.view(), H.view(), options, {}).has_value());
}

}  // namespace cuda_accelerated_gptq_test
