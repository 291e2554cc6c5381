// The measured loss of a layer's kept experts, against two runs of the model.
#include <slimtrim/pipeline/decide/reconstruction.hpp>

#include <pipeline/support.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace pipeline_decide_reconstruction_test {

using namespace slimtrim;
using namespace pipeline_tests;

TEST_CASE("the loss is what the stream behind the layer misses") {
  token_windows const windows = train_windows(3, 40);
  std::vector<index_t> const kept{0, 2, 3, 6, 7};
  // Models that end behind layer 2, so that the last stream is the one behind it.
  plan whole = keep_everything(bundled().config);
  for (index_t i = 3; i < 8; ++i) whole.layer(i).block = false;
  plan trimmed = whole;
  trimmed.layer(2).experts = kept;
  opened_model const a = planned_model(bundled(), whole), b = planned_model(bundled(), trimmed);
  model_ends const ends = load_ends(bundled().config, *bundled().weights);
  window_streams x(ends, windows, 0, 3), y(ends, windows, 0, 3);
  run_streams(a, x);
  run_streams(b, y);
  double sum = 0;
  for (index_t t = 0; t < x.all().extent(0); ++t)
    for (index_t j = 0; j < x.all().extent(1); ++j) {
      double const difference = static_cast<double>(x.all()(t, j)) - static_cast<double>(y.all()(t, j));
      sum += difference * difference;
    }
  measured_loss const found = reconstruction_loss_of(bundled(), windows, 2, kept);
  // The streams carry the difference with the rounding of their own, larger, values.
  CHECK(found.loss == doctest::Approx(sum / static_cast<double>(x.all().extent(0))).epsilon(1e-3));
  model_statistics const statistics = calibrate_model(bundled(), windows);
  CHECK(found.unit == doctest::Approx(statistics.layer(2).similarity.residual_square()).epsilon(1e-5));
}

TEST_CASE("windows within the memory are evenly spaced") {
  token_windows const windows = train_windows(6, 20);
  model_config const& config = bundled().config;
  auto const of_one = static_cast<std::uint64_t>(reconstruction_tokens::floats_a_token(8)) * 20 * 4;
  CHECK(windows_for_reconstruction(config, windows, 6 * of_one).tokens == windows.tokens);
  token_windows const some = windows_for_reconstruction(config, windows, 3 * of_one + 1);
  REQUIRE(some.count() == 3);
  for (index_t k = 0; k < 3; ++k) CHECK(std::equal(some[k].begin(), some[k].end(), windows[2 * k].begin()));
  CHECK(windows_for_reconstruction(config, windows, 0).count() == 1);
}

}  // namespace pipeline_decide_reconstruction_test
