// A slimmed model in memory is the one that compress writes.
#include <slimtrim/pipeline/search/slimmed_model.hpp>

#include <pipeline/support.hpp>

#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

namespace pipeline_search_slimmed_model_test {

using namespace slimtrim;
using namespace pipeline_tests;

TEST_CASE("the same model in memory and on disk") {
  temporary_folder const folder;
  write_synthetic(folder.path() / "m", {.family = "mixtral", .layers = 2, .hidden = 32, .intermediate = 64, .experts = 4, .heads = 2, .vocabulary = 2048});
  opened_model const model = open_model(folder.path() / "m");
  token_windows const windows = train_windows(6, 32), held = valid_windows(2, 32);
  plan p = slim_plan(model.config, "recover+gptq:4g32+rtn:8g32");
  p.slimming[1].targets = {"experts"};
  p.slimming[2].targets = {"lm_head", "router"};
  p.layer(1).experts = {0, 2, 3};
  compress_options options;
  options.data = &windows;
  compress_model(model, p, folder.path() / "o", options);
  opened_model const written = open_model(folder.path() / "o"), held_in_memory = slim_in_memory(model, p, windows);
  CHECK(evaluate_model(written, &held_in_memory, held).kl_mean < 1e-9);
  CHECK(written.config.layer(1).experts == 3);
}

}  // namespace pipeline_search_slimmed_model_test
