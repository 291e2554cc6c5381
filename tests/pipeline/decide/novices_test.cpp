// Experts that become constants: the plan, the model seen through it, the model written, and the model read again.
#include <slimtrim/pipeline/decide/novices.hpp>

#include <pipeline/support.hpp>

#include <slimtrim/pipeline/price.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace pipeline_decide_novices_test {

using namespace slimtrim;
using namespace pipeline_tests;

TEST_CASE("means of outputs stand for experts, in memory and on disk") {
  token_windows const windows = train_windows(3, 48), held = valid_windows(2, 40);
  model_statistics const statistics = calibrate_model(bundled(), windows);
  decide_inputs const inputs{.model = &bundled(), .statistics = &statistics, .data = &windows};
  plan const p = decide_plan("novice:5/8", inputs);
  for (index_t i = 0; i < 8; ++i) {
    layer_plan const& layer = p.layer(i);
    CHECK(layer.experts.size() == 8);
    REQUIRE(layer.novices.size() == 3);
    std::vector<double> const mean = statistics.layer(i).outputs->mean(layer.novices[1].expert);
    for (std::size_t c = 0; c < mean.size(); ++c) CHECK_UNARY(layer.novices[1].constant[c] == static_cast<float>(mean[c]));
  }
  opened_model const seen = planned_model(bundled(), p);
  index_t const gone = p.layer(2).novices[0].expert;
  CHECK(seen.weights->has({module_role::novice, 2, gone}));
  CHECK_FALSE(seen.weights->has({module_role::down, 2, gone}));
  double const kl = evaluate_model(seen, &bundled(), held).kl_mean;
  CHECK(kl > 0);

  temporary_folder const folder;
  compress_result const written = compress_model(bundled(), p, folder.path() / "n");
  CHECK(has(written.notes.front(), "novices"));
  CHECK(price(bundled(), p).file_bytes == written.bytes_out);
  opened_model const out = open_model(folder.path() / "n");
  CHECK(evaluate_model(out, &seen, held).kl_mean == 0);
  CHECK(out.files->config() == bundled().files->config());

  // Constants stay constants in later steps and later runs.
  plan const again = decide_plan("novice:4/8", {.model = &out, .data = &windows});
  for (layer_plan const& layer : again.layers) CHECK(layer.novices.size() == 1);
  plan const composed = decide_plan("novice:6/8+neuron_drop:128+novice:4/8+rtn:4g64", inputs);
  compress_model(bundled(), composed, folder.path() / "c");
  opened_model const small = open_model(folder.path() / "c");
  for (index_t i = 0; i < 8; ++i) CHECK(composed.layer(i).novices.size() == 4);
  CHECK(evaluate_model(small, &bundled(), held).kl_mean < 20);
  plan const narrow = decide_plan("neuron_drop:128", {.model = &out, .data = &windows});
  compress_model(out, narrow, folder.path() / "w");
  opened_model const thin = open_model(folder.path() / "w"), shown = planned_model(out, narrow);
  CHECK(evaluate_model(thin, &shown, held).kl_mean < 1e-9);
  CHECK(has(message_of<usage_error>([&] { static_cast<void>(decide_plan("novice:6/8+expert_merge:4/8", inputs)); }), "found novices"));
}

}  // namespace pipeline_decide_novices_test
