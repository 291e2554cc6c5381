// Tokens drawn on the device against the host's sampler, and embedding rows.
#include "cuda/support.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/sample.cuh>
#include <slimtrim/model/sampler.hpp>
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

namespace cuda_sample_test {

using namespace slimtrim;

namespace {

std::vector<std::int32_t> draw(cuda_tests::device_memory& device, tensor<float, 2> const& logits,
                               cuda::draw_options const& options, std::int32_t step) {
  auto const tokens = device.vector<std::int32_t>(logits.extent(0));
  cuda::draw_tokens(device.backend().on(),
                    as_const(device.upload_matrix<float>(logits, backend_tests::layout::padded_rows)), options,
                    device.keep<std::int32_t>(&step, 1), tokens.data);
  return device.download<std::int32_t>(tokens);
}

}  // namespace

TEST_CASE("sample: the most likely token, ties to the lower index") {
  cuda_tests::device_memory device;
  for (index_t vocabulary : {1, 31, 1024, 3000}) {
    tensor<float, 2> logits(3, vocabulary);
    for (index_t i = 0; i < logits.view().size(); ++i)
      logits.view().data[i] = std::round(4 * static_cast<float>(normal_at(5, 1, static_cast<std::uint64_t>(i))));
    auto const found = draw(device, logits, {}, 0);
    for (index_t s = 0; s < 3; ++s) {
      index_t best = 0;
      for (index_t i = 1; i < vocabulary; ++i)
        if (logits(s, i) > logits(s, best)) best = i;
      CHECK(found[static_cast<std::size_t>(s)] == best);
    }
  }
  device.backend().synchronise();
}

TEST_CASE("sample: draws at a temperature are the host's") {
  cuda_tests::device_memory device;
  tensor<float, 2> logits(2, 1500);
  for (index_t i = 0; i < logits.view().size(); ++i)
    logits.view().data[i] = static_cast<float>(2 * normal_at(5, 2, static_cast<std::uint64_t>(i)));
  sampler host({.temperature = 0.7, .seed = 9});
  for (std::int32_t step = 0; step < 12; ++step) {
    auto const found = draw(device, logits, {0.7, 9, 3}, step);
    for (index_t s = 0; s < 2; ++s)
      CHECK(found[static_cast<std::size_t>(s)] ==
            static_cast<std::int32_t>(host(row(as_const(logits.view()), s), 3 + static_cast<std::uint64_t>(s),
                                           static_cast<std::uint64_t>(step))));
  }
}

TEST_CASE("sample: NaN is reported") {
  cuda_tests::device_memory device;
  tensor<float, 2> logits(1, 100);
  logits.fill(0.0F);
  logits(0, 70) = std::numeric_limits<float>::quiet_NaN();
  static_cast<void>(draw(device, logits, {}, 0));
  CHECK_THROWS_AS(device.backend().synchronise(), numeric_error);
}

}  // namespace cuda_sample_test
