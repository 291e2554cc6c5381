// What a caller brings is what the accelerator calls, on its own device; what is not brought is the host's.
#include "cuda/support.hpp"

#include <slimtrim/cuda/model/accelerator.cuh>
#include <slimtrim/cuda/model/slimming_functions.cuh>
#include <doctest/doctest.h>

#include <optional>
#include <vector>

namespace cuda_slimming_functions_test {

using namespace slimtrim;

TEST_CASE("slimming_functions: each is called with what was given, null ones leave it to the host") {
  tensor<float, 2> W(2, 4), H(4, 4);
  W.fill(0.5F);
  H.fill(0.0F);
  std::vector<awq_member<float>> const members{{W.view(), H.view()}, {W.view(), H.view()}};
  index_t kept = 0;

  cuda::device_accelerator<bfloat16> bare(nullptr);
  CHECK_FALSE(bare.gptq(W.view(), H.view(), {}, {}).has_value());
  CHECK_FALSE(bare.awq(W.view(), H.view(), {}, {}, {}, &kept).has_value());
  CHECK_FALSE(bare.search_awq_scales(members, {}, {}).has_value());
  CHECK_FALSE(bare.sparsegpt(W.view(), H.view(), {}).has_value());

  cuda::slimming_functions functions;
  functions.gptq = [](cuda::context& on, matrix_view<float const> w, matrix_view<float const> h, gptq_options const& options,
                      matrix_view<float const> judge) -> std::optional<gptq_result> {
    gptq_result result;
    bool const given = on.compute_capability() == 90 && w.extent(1) == 4 && h.extent(0) == 4 && options.descent_passes == 7 &&
                       judge.data == h.data;
    result.report.error = given ? 1 : 0;
    return result;
  };
  functions.awq = [](cuda::context&, matrix_view<float const> w, matrix_view<float const>, std::vector<float> const& scales,
                     awq_options const& options, matrix_view<float const>, index_t* rows_kept) -> std::optional<quantized_matrix> {
    *rows_kept = static_cast<index_t>(scales.size());
    return quantized_matrix(w.extent(0), w.extent(1), options.grid, options.groups, options.scales_stored_as);
  };
  functions.search_awq_scales = [](cuda::context&, std::vector<awq_member<float>> const& all, awq_options const& options,
                                   std::vector<index_t> const& tied) -> std::optional<awq_scales> {
    awq_scales found;
    found.ratio = static_cast<double>(all.size());
    found.error = options.ratios;
    found.error_plain = static_cast<double>(tied.size());
    return found;
  };
  functions.sparsegpt = [](cuda::context&, matrix_view<float const> w, matrix_view<float const> h,
                           sparsegpt_options const& options) -> std::optional<sparsegpt_result> {
    sparsegpt_result result;
    result.report.error = static_cast<double>(w.extent(1) + h.extent(0) + options.pattern.of);
    return result;
  };
  cuda::device_accelerator<bfloat16> device(nullptr, functions);
  gptq_options options;
  options.descent_passes = 7;
  CHECK(device.gptq(W.view(), H.view(), options, H.view())->report.error == 1);
  CHECK(device.awq(W.view(), H.view(), {1.0F, 2.0F, 1.0F, 1.0F}, {}, {}, &kept)->rows == 2);
  CHECK(kept == 4);
  awq_options seven;
  seven.ratios = 7;
  auto const found = device.search_awq_scales(members, seven, {0, 0, 2});
  CHECK(found->ratio == 2);
  CHECK(found->error == 7);
  CHECK(found->error_plain == 3);
  CHECK(device.sparsegpt(W.view(), H.view(), {.pattern = {.keep = 2, .of = 4}})->report.error == 12);
}

}  // namespace cuda_slimming_functions_test
