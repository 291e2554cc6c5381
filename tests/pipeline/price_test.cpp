// The price of a plan equals what inspect counts of the model that compress writes.
#include <slimtrim/pipeline/price.hpp>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/pipeline/recipe_text.hpp>
#include <slimtrim/pipeline/synth.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <string>

namespace pipeline_price_test {

using namespace slimtrim;

namespace {

void compare(inspection const& priced, inspection const& counted) {
  CHECK(priced.total.bytes == counted.total.bytes);
  CHECK(priced.total.active_bytes == counted.total.active_bytes);
  CHECK(priced.total.parameters == counted.total.parameters);
  CHECK(priced.layers.size() == counted.layers.size());
}

}  // namespace

TEST_CASE("priced as written") {
  temporary_folder folder;
  synth_options options;
  options.shape = {.family = "deepseek", .layers = 3, .hidden = 64, .intermediate = 64, .experts = 4, .heads = 4,
                   .vocabulary = 40};
  synthesize(folder.path() / "m", options);
  opened_model const model = open_model(folder.path() / "m");
  eigen_backend const backend;
  // A file of ours has metadata of ours, so only what it holds is the same.
  compare(price(model, keep_everything(model.config)), inspect(*model.files, model.config));

  int number = 0;
  for (char const* const format : {"", "compressed-tensors", "gptq"}) {
    plan p = keep_everything(model.config);
    p.layer(1).experts = {0, 2, 3};
    p.layer(2).feed_forward = false;
    p.slimming = parse_recipe("rtn:4g32").steps;
    p.recipe = "by hand";
    auto const out = folder.path() / std::to_string(number++);
    (void)compress(backend, model, p, out, {.format = format});
    opened_model const written = open_model(out);
    inspection const priced = price(model, p, format), counted = inspect(*written.files, written.config);
    CHECK(priced.file_bytes == counted.file_bytes);
    compare(priced, counted);
  }
}

TEST_CASE("impossible plans are refused as compress refuses them") {
  temporary_folder folder;
  synth_options options;
  options.shape = {.layers = 1, .hidden = 48, .intermediate = 48, .heads = 4, .vocabulary = 40};
  synthesize(folder.path() / "m", options);
  opened_model const model = open_model(folder.path() / "m");
  plan p = keep_everything(model.config);
  p.slimming = parse_recipe("rtn:4g32").steps;
  CHECK_THROWS_AS((void)price(model, p), usage_error);
  CHECK_THROWS_AS((void)price(model, p, "zip"), usage_error);
  p.layers.clear();
  CHECK_THROWS_AS((void)price(model, p), input_error);
}

}  // namespace pipeline_price_test
