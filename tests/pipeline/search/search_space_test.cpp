// Candidates as recipes: what they say, and that they can be read again.
#include <slimtrim/pipeline/search/search_space.hpp>

#include <slimtrim/pipeline/recipe_toml.hpp>
#include <slimtrim/pipeline/synth_shape.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace pipeline_search_space_test {

using namespace slimtrim;

namespace {

model_config some_config() {
  return synth_config({.family = "mixtral", .layers = 4, .hidden = 64, .intermediate = 128, .experts = 8, .heads = 2, .vocabulary = 300});
}

}  // namespace

TEST_CASE("structures name their layers, blocks first") {
  drop_orders const orders{{2, 0, 1}, {3, 2, 1}};
  auto const [blocks, layers] = dropped_by({2, 2, 0, 0}, orders);
  CHECK(blocks == std::vector<index_t>{0, 2});
  CHECK(layers == std::vector<index_t>{1, 3});
  recipe r;
  r.steps = structure_steps({1, 2, 6, 96}, orders, some_config(), false);
  REQUIRE(r.steps.size() == 4);
  CHECK(r.steps[0].layers == std::vector<index_t>{2});
  CHECK(short_form(r.steps[2]) == "expert_drop:6/8@global_reap_residual");
  CHECK(short_form(r.steps[3]) == "neuron_drop:96");
  CHECK(load_recipe(to_string(r)).steps == r.steps);
  CHECK(short_form(structure_steps({0, 0, 6, 0}, orders, some_config(), true)[0]) == "expert_drop:6/8");
  CHECK(structure_steps({}, orders, some_config(), false).empty());
}

TEST_CASE("bits become as few steps as say it") {
  std::vector<bool> const present{true, true, false, false, true, true};
  search_candidate c;
  c.bits.assign(6, std::vector<int>(4, 4));
  c.bits[4].assign(4, 16);
  c.bits[5].assign(4, 8);
  recipe r;
  r.steps = slim_steps(c, present, {0, 1, 2, 3}, 64);
  REQUIRE(r.steps.size() == 2);
  CHECK(short_form(r.steps[0]) == "gptq:4g64");
  CHECK(r.steps[0].targets.empty());
  CHECK(short_form(r.steps[1]) == "rtn:8g64m");
  CHECK(r.steps[1].targets == std::vector<std::string>{"embedding"});
  CHECK(load_recipe(to_string(r)).steps == r.steps);
  c.structure.layers = 1;
  c.bits[0] = {2, 4, 16, 2};
  c.bits[5].assign(4, 16);
  r.steps = slim_steps(c, present, {0, 1, 2, 3}, 64);
  REQUIRE(r.steps.size() == 4);
  CHECK(r.steps[0].method == method::recover);
  CHECK(short_form(r.steps[1]) == "gptq:2g64");
  CHECK(r.steps[1].layers == std::vector<index_t>{0, 3});
  CHECK(r.steps[2].layers == std::vector<index_t>{1});
  CHECK(r.steps[3].targets == std::vector<std::string>{"attention"});
  CHECK(load_recipe(to_string(r)).steps == r.steps);
  // Layers that went do not count.
  CHECK(slim_steps(c, present, {0, 3}, 64).size() == 3);
}

TEST_CASE("groups divide every width") {
  CHECK(common_group(some_config(), 0) == 64);
  CHECK(common_group(some_config(), 96) == 32);
  CHECK(common_group(some_config(), 100) == 0);
  CHECK(searched_class(module_role::down) == 0);
  CHECK(searched_class(module_role::head) == 4);
  CHECK(searched_class(module_role::router) == 6);
  CHECK(searched_class(module_role::final_norm) == 6);
}

}  // namespace pipeline_search_space_test
