// The meter against `evaluate`, with and without memory for the base's streams.
#include <slimtrim/pipeline/kl_meter.hpp>

#include <pipeline/support.hpp>

#include <doctest/doctest.h>

namespace pipeline_kl_meter_test {

using namespace slimtrim;
using namespace pipeline_tests;

TEST_CASE("the same divergence as evaluate, wherever it starts") {
  token_windows const windows = valid_windows(3, 40);
  plan p = keep_everything(bundled().config);
  p.layer(4).feed_forward = false;
  p.layer(6).block = false;
  opened_model const changed = planned_model(bundled(), p);
  double const expected = evaluate_model(changed, &bundled(), windows).kl_mean;
  // All streams held, the last one only, none.
  for (std::uint64_t const bytes : {std::uint64_t{1} << 29, std::uint64_t{200000}, std::uint64_t{1000}}) {
    CAPTURE(bytes);
    for (index_t const same : {0, 2, 4}) {
      CAPTURE(same);
      CHECK(metered_kl(bundled(), changed, windows, same, bytes) == doctest::Approx(expected).epsilon(1e-6));
    }
  }
  CHECK(metered_kl(bundled(), bundled(), windows) == 0);
  CHECK(metered_kl(bundled(), bundled(), windows, 8) == 0);
}

}  // namespace pipeline_kl_meter_test
