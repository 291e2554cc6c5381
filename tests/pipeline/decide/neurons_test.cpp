// Neurons that go: the least energy goes, stock loaders see one width, and what is written is what was shown.
#include <slimtrim/pipeline/decide/neurons.hpp>

#include <pipeline/support.hpp>

#include <slimtrim/pipeline/recipe_text.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

namespace pipeline_decide_neurons_test {

using namespace slimtrim;
using namespace pipeline_tests;

TEST_CASE("the neurons of least energy go, in every expert") {
  token_windows const windows = train_windows(3, 48), held = valid_windows(2, 40);
  model_statistics const statistics = calibrate_model(bundled(), windows);
  decide_inputs const inputs{.model = &bundled(), .statistics = &statistics, .data = &windows};
  plan const p = decide_plan("neuron_drop:192", inputs);
  std::vector<index_t> const& kept = p.layer(3).neurons.at(5);
  REQUIRE(kept.size() == 192);
  tensor<float, 2> const down = expand(bundled().weights->matrix({module_role::down, 3, 5}).view);
  double least_kept = 1e300, most_gone = 0;
  for (index_t k = 0; k < 256; ++k) {
    double score = 0;
    for (index_t r = 0; r < 128; ++r) score += static_cast<double>(down(r, k)) * static_cast<double>(down(r, k));
    score *= statistics.layer(3).neurons->weighted(5, k);
    double& bound = std::binary_search(kept.begin(), kept.end(), k) ? least_kept : most_gone;
    bound = &bound == &least_kept ? std::min(bound, score) : std::max(bound, score);
  }
  CHECK(least_kept >= most_gone);

  temporary_folder const folder;
  opened_model const seen = planned_model(bundled(), p);
  CHECK(seen.config.layer(0).intermediate == 192);
  compress_result const written = compress_model(bundled(), p, folder.path() / "n");
  CHECK(has(written.notes.front(), "same shape as an ordinary mixtral"));
  CHECK(written.slimmed.empty());
  opened_model const out = open_model(folder.path() / "n");
  ordered_json expected = bundled().files->config();
  expected["intermediate_size"] = 192;
  CHECK(out.files->config() == expected);
  // The same values, as bfloat16 and as floats: products may round otherwise.
  CHECK(evaluate_model(out, &seen, held).kl_mean < 1e-9);

  // Again, from what is left; and with slimming and recovery behind it.
  plan const twice = decide_plan("neuron_drop:192+neuron_drop:128", inputs);
  CHECK(twice.layers == decide_plan("neuron_drop:128", inputs).layers);
  plan const measured_again = decide_plan("neuron_drop:192+neuron_drop:128", inputs, {.recalibrate = true});
  for (index_t const n : measured_again.layer(3).neurons.at(5)) CHECK(std::binary_search(kept.begin(), kept.end(), n));
  plan slim = decide_plan("neuron_drop:128+recover+rtn:4g64", inputs);
  compress_options options;
  options.data = &windows;
  compress_model(bundled(), slim, folder.path() / "s", options);
  CHECK(open_model(folder.path() / "s").config.layer(7).intermediate == 128);
  CHECK(decide_plan("neuron_drop:100@random", {.model = &bundled()}, {.seed = 1}).layer(2).neurons.at(0).size() == 100);
  CHECK(has(message_of<usage_error>([&] { static_cast<void>(decide_plan("neuron_drop:257", inputs)); }), "expected at most the width that experts have, 256"));

  // One layer alone: a list of widths, which slimtrim reads.
  recipe some;
  some.steps = parse_recipe("neuron_drop:64").steps;
  some.steps[0].layers = {2};
  plan const one = decide_recipe(some, inputs);
  compress_result const uneven = compress_model(bundled(), one, folder.path() / "u");
  CHECK(has(uneven.notes.front(), "layers differ"));
  opened_model const read = open_model(folder.path() / "u"), shown = planned_model(bundled(), one);
  CHECK(read.config.layer(2).intermediate == 64);
  CHECK(evaluate_model(read, &shown, held).kl_mean < 1e-9);
  // Packed weights cannot lose neurons.
  compress_model(bundled(), slim_plan(bundled().config, "rtn:4g64"), folder.path() / "q");
  opened_model const packed = open_model(folder.path() / "q");
  plan const late = decide_plan("neuron_drop:128@random", {.model = &packed});
  CHECK(has(message_of<input_error>([&] { compress_model(packed, late, folder.path() / "x"); }), "is packed already"));
}

}  // namespace pipeline_decide_neurons_test
