// The planner on a small model: what it finds fits, is measured, can be carried out, and is the same every time.
#include <slimtrim/pipeline/search.hpp>

#include <pipeline/support.hpp>

#include <slimtrim/pipeline/recipe_toml.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <string>

namespace pipeline_search_test {

using namespace slimtrim;
using namespace pipeline_tests;

TEST_CASE("a recipe for a size") {
  temporary_folder const folder;
  write_synthetic(folder.path() / "m", {.family = "mixtral", .layers = 3, .hidden = 32, .intermediate = 64, .experts = 4, .heads = 2, .vocabulary = 512});
  opened_model const model = open_model(folder.path() / "m");
  token_windows windows = train_windows(8, 24);
  for (std::uint32_t& id : windows.tokens) id %= 512;
  search_options options;
  options.target = model.files->file_bytes() / 2;
  options.bits = {4, 8};
  options.most_recipes = 10;
  options.seconds = 1e6;
  search_result const found = search_model(model, windows, options);
  CHECK(found.best.bytes <= options.target);
  CHECK(found.recipes <= 10);
  CHECK_FALSE(found.cut_short);
  CHECK(found.plan.recipe == found.best.steps.text);
  for (std::size_t i = 1; i < found.front.size(); ++i) {
    CHECK(found.front[i].bytes > found.front[i - 1].bytes);
    CHECK(found.front[i].kl < found.front[i - 1].kl);
  }
  // No measured recipe that fits is better.
  for (searched_recipe const& each : found.front)
    if (each.bytes <= options.target) CHECK(each.kl >= found.best.kl);
  search_result const again = search_model(model, windows, options);
  CHECK(again.plan.layers == found.plan.layers);
  CHECK(again.plan.recipe == found.plan.recipe);
  CHECK(again.best.kl == found.best.kl);

  // What was priced is what is written, and the recipe can be read and decided again.
  compress_options writing;
  writing.data = &windows;
  CHECK(compress_model(model, found.plan, folder.path() / "o", writing).bytes_out == found.best.bytes);
  plan const decided = decide_recipe(load_recipe(found.best.steps.text), {.model = &model, .data = &windows});
  CHECK(decided.slimming == found.plan.slimming);

  options.target = 1000;
  std::string const refused = message_of<usage_error>([&] { static_cast<void>(search_model(model, windows, options)); });
  CHECK(has(refused, "the smallest size that this search can reach"));
  options.goal = size_goal::active_bytes;
  options.target = model.files->file_bytes() / 4;
  options.most_recipes = 6;
  search_result const active = search_model(model, windows, options);
  CHECK(active.best.active_bytes <= options.target);
  // A bound of no time: a recipe that fits all the same, or a word about it.
  options.seconds = 1e-9;
  try {
    CHECK(search_model(model, windows, options).cut_short);
  } catch (usage_error const& e) {
    CHECK(has(e.what(), "--search-seconds"));
  }
}

}  // namespace pipeline_search_test
