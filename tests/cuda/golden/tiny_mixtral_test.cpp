// The bundled model on the device against the numbers of an independent float32 implementation (golden.json).
//
// Tolerance: activations are rounded to 8 bits, 2^-8 of their size at most, about six times in each of 8 layers:
// sqrt(48) 2^-8 = 2.7e-2 of the logits' size as a root of mean squares; a likelihood is a difference of logits of size
// 4, so it has that times 4, and the worst of 63 is taken to be within three times that.
#include <cuda/support.hpp>
#include <model/support.hpp>

#include <slimtrim/cuda/model/generate.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace cuda_tiny_mixtral_test {

using namespace slimtrim_tests;

TEST_CASE("tiny-mixtral on the device: logits and likelihoods of input64") {
  auto const& golden = tiny_mixtral_golden().at("input64");
  auto const ids = input64();
  auto const files = tiny_mixtral_files();
  model_config const& config = tiny_mixtral().config;
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  cuda::device_model<bfloat16> const m(on, config, plain_weights(files, config));
  CHECK(m.bytes() > 0);
  cuda::layer_workspace<bfloat16> work(on, m.shape, m.extents, 64);
  cuda::device_cache<bfloat16> const cache(m, 1, 64);
  cuda::attention_workspace const attention(on, 1, m.shape.heads, 64);
  std::int32_t const zero = 0;
  std::vector<std::int32_t> const tokens(ids.begin(), ids.end());
  auto const logits = device.matrix<float>(64, m.logit_columns());
  cuda::forward<bfloat16>(on, m, device.keep<std::int32_t>(tokens.data(), 64), 64,
                          {device.keep<std::int32_t>(&zero, 1), 64}, cache, 0, attention, work);
  cuda::final_logits<bfloat16>(on, m.shape, m.ends, 64, 0, 64, work, logits);
  device.backend().synchronise();
  auto const found = device.download<float>(logits);

  auto const last = golden.at("logits_last_position").get<std::vector<double>>();
  double error = 0, size = 0;
  std::size_t best = 0;
  float const* const row = found.data() + 63 * m.logit_columns();
  for (std::size_t i = 0; i < last.size(); ++i) {
    error += (static_cast<double>(row[i]) - last[i]) * (static_cast<double>(row[i]) - last[i]);
    size += last[i] * last[i];
    if (row[i] > row[best]) best = i;
  }
  CHECK(std::sqrt(error / size) < 0.027);
  CHECK(static_cast<index_t>(best) == golden.at("argmax_last").get<index_t>());
  auto const nll = golden.at("nll_per_target").get<std::vector<double>>();
  double sum = 0, worst = 0;
  for (std::size_t t = 0; t < 63; ++t) {
    vector_view<float const> const of(found.data() + static_cast<index_t>(t) * m.logit_columns(), config.vocabulary);
    double const value = negative_log_likelihood(of, ids[t + 1]);
    worst = std::max(worst, std::abs(value - nll[t]));
    sum += value;
  }
  CHECK(worst < 3 * 4 * 0.027);
  // Of 63 independent deviations of 4 * 0.027 the mean deviates by an eighth of that.
  CHECK(std::abs(sum / 63 - golden.at("mean_nll_63_targets").get<double>()) < 4 * 0.027 / 8);
}

}  // namespace cuda_tiny_mixtral_test
