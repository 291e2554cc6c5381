// Plans: what fits a model, and what modules and dimensions are called afterwards.
#include <slimtrim/pipeline/plan.hpp>

#include <slimtrim/model/read_model_config.hpp>
#include <slimtrim/pipeline/recipe_text.hpp>
#include <slimtrim/pipeline/synth_shape.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace pipeline_plan_test {

using namespace slimtrim;

namespace {

model_config mixtral(index_t layers = 4) {
  return synth_config({.family = "mixtral", .layers = layers, .hidden = 32, .intermediate = 48, .experts = 4, .heads = 2, .vocabulary = 300});
}

std::string refusal(plan const& p, model_config const& config) {
  try {
    check_plan(p, config, "p.json");
  } catch (input_error const& e) {
    return e.what();
  }
  return "accepted";
}

bool has(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("keep everything fits and changes nothing") {
  model_config const config = mixtral();
  plan const p = keep_everything(config);
  CHECK(refusal(p, config) == "accepted");
  model_config const same = planned_config(config, p);
  REQUIRE(same.layer_count() == 4);
  for (index_t i = 0; i < 4; ++i) {
    CHECK(same.layer(i).experts == 4);
    CHECK(same.layer(i).original_experts.empty());
    CHECK(planned_layer(p, i) == i);
  }
  CHECK_FALSE(planned_layer(p, -1));
  CHECK_FALSE(planned_layer(p, 4));
  module_id const down{module_role::down, 2, 3};
  CHECK(planned_module(p, down) == down);
}

TEST_CASE("what a plan makes of dimensions and names") {
  model_config const config = mixtral();
  plan p = keep_everything(config);
  p.layer(0).attention = false;
  p.layer(1).block = false;
  p.layer(2).feed_forward = false;
  p.layer(3).experts = {1, 3};
  CHECK(refusal(p, config) == "accepted");
  model_config const left = planned_config(config, p);
  REQUIRE(left.layer_count() == 3);
  CHECK_FALSE(left.layer(0).attention);
  CHECK(left.layer(1).feed_forward == feed_forward_kind::none);
  CHECK(left.layer(1).experts == 0);
  CHECK(left.layer(2).experts == 2);
  CHECK(left.layer(2).original_experts == std::vector<index_t>{1, 3});
  CHECK(left.layer(2).original_expert(1) == 3);

  CHECK_FALSE(planned_layer(p, 1));
  CHECK(planned_layer(p, 3) == 2);
  CHECK(planned_module(p, {module_role::embedding}) == module_id{module_role::embedding});
  CHECK(planned_module(p, {module_role::head}) == module_id{module_role::head});
  CHECK_FALSE(planned_module(p, {module_role::attention_norm, 0}));
  CHECK_FALSE(planned_module(p, {module_role::output, 0}));
  CHECK(planned_module(p, {module_role::router, 0}) == module_id{module_role::router, 0});
  CHECK_FALSE(planned_module(p, {module_role::query, 1}));
  CHECK_FALSE(planned_module(p, {module_role::feed_forward_norm, 2}));
  CHECK(planned_module(p, {module_role::query, 2}) == module_id{module_role::query, 1});
  CHECK(planned_module(p, {module_role::up, 3, 3}) == module_id{module_role::up, 2, 1});
  CHECK_FALSE(planned_module(p, {module_role::up, 3, 2}));
  CHECK_FALSE(planned_module(p, {module_role::up, 2, 0}));

  // A plan for what is left counts experts as the checkpoint does and remembers the first numbers.
  plan again = keep_everything(left);
  again.layer(2).experts = {1};
  model_config twice = left;
  twice.layers[2].top_k = 1;
  CHECK(planned_config(twice, again).layer(2).original_experts == std::vector<index_t>{3});
}

TEST_CASE("what does not fit is refused with the field's name") {
  model_config const config = mixtral();
  plan const good = keep_everything(config);
  plan p = good;
  p.layers.pop_back();
  CHECK(has(refusal(p, config), "p.json: field 'layers': expected 4 entries, found 3"));
  p = good;
  p.layer(1).experts = {0, 4};
  CHECK(has(refusal(p, config), "field 'layers[1].experts': expected indices below 4, found 4"));
  p.layer(1).experts = {-1, 2};
  CHECK(has(refusal(p, config), "layers[1].experts"));
  p.layer(1).experts = {2, 2};
  CHECK(has(refusal(p, config), "layers[1].experts': expected ascending"));
  p.layer(1).experts = {2};
  CHECK(has(refusal(p, config), "layers[1].experts': expected at least 2"));
  p = good;
  for (layer_plan& layer : p.layers) layer.block = false;
  CHECK(has(refusal(p, config), "at least one layer"));
  p = good;
  for (layer_plan& layer : p.layers) layer.attention = layer.feed_forward = false;
  CHECK(has(refusal(p, config), "at least one layer"));
  model_config without = config;
  without.layers[2].attention = false;
  CHECK(has(refusal(good, without), "layers[2].attention': expected false"));
  without = config;
  without.layers[2].feed_forward = feed_forward_kind::none;
  without.layers[2].experts = 0;
  CHECK(has(refusal(good, without), "layers[2].feed_forward': expected false"));
  // What stands in a layer that goes does not matter.
  p = good;
  p.layer(1).block = false;
  p.layer(1).experts = {9};
  CHECK(refusal(p, config) == "accepted");
}

TEST_CASE("slim steps that have nothing to work on") {
  model_config const config = synth_config({.layers = 3, .hidden = 32, .intermediate = 48, .experts = 4, .heads = 2, .vocabulary = 300});
  plan p = keep_everything(config);
  p.slimming.push_back({});
  step& s = p.slimming.front();
  s.method = method::rtn;
  s.quantization = default_quantization(method::rtn, 4, 32);
  auto const after = [&](std::vector<std::string> const& targets, std::vector<index_t> const& layers) {
    s.targets = targets;
    s.layers = layers;
    return refusal(p, config);
  };
  CHECK(after({}, {}) == "accepted");
  CHECK(after({"experts"}, {0, 2}) == "accepted");
  CHECK(has(after({"experts"}, {0, 3}), "step 'rtn:4g32': layers: expected 0 to 2, found 3"));
  CHECK(has(after({"re:.*w2", "shared_experts"}, {}), "targets: expected some matrix of the model among them, found re:.*w2, shared_experts"));
  CHECK(has(after({"lm_head"}, {1}), "found lm_head"));
  CHECK(after({"lm_head"}, {}) == "accepted");

  auto const steps = [&](std::string const& text) {
    p.slimming = parse_recipe(text).steps;
    return refusal(p, config);
  };
  for (char const* const good : {"awq:4g32+gptq:4g32", "wanda:2:4+gptq:4g32", "magnitude:50%+rtn:4g32", "rtn:4g32+recover"}) CHECK(steps(good) == "accepted");
  CHECK(has(steps("rtn:4g32+rtn:8g32"), "step 'rtn:8g32': 'model.layers.0.self_attn.q_proj.weight': expected once, is packed already by 'rtn:4g32'"));
  CHECK(has(steps("rtn:4g32+magnitude:50%"), "is packed already by 'rtn:4g32'"));
  p.slimming = parse_recipe("gptq:4g32").steps;
  for (std::string const target : {"lm_head", "router", "embedding", "*"}) {
    p.slimming.front().targets = {target};
    CHECK(has(refusal(p, config), "works on tokens, and only experts"));
  }
  // One after the other on different matrices.
  p.slimming = parse_recipe("rtn:4g32+rtn:8g32").steps;
  p.slimming[0].targets = {"experts"};
  p.slimming[1].targets = {"attention"};
  CHECK(refusal(p, config) == "accepted");
}

TEST_CASE("dense layers and shared experts") {
  model_config const config = synth_config({.family = "deepseek", .layers = 3, .hidden = 32, .intermediate = 48, .experts = 4, .heads = 2,
                                            .vocabulary = 300, .shared_experts = 1});
  REQUIRE(config.layer(0).feed_forward == feed_forward_kind::dense);
  plan p = keep_everything(config);
  CHECK(p.layer(0).experts.empty());
  p.layer(1).experts = {0, 2, 3};
  CHECK(refusal(p, config) == "accepted");
  model_config const left = planned_config(config, p);
  CHECK(left.layer(0).intermediate == config.layer(0).intermediate);
  CHECK(left.layer(1).shared_intermediate == config.layer(1).shared_intermediate);
  CHECK(planned_module(p, {module_role::shared_down, 1}) == module_id{module_role::shared_down, 1});
  p.layer(1).feed_forward = false;
  CHECK_FALSE(planned_module(p, {module_role::shared_down, 1}));
  CHECK(planned_config(config, p).layer(1).shared_intermediate == 0);
  p.layer(0).experts = {0};
  CHECK(has(refusal(p, config), "layers[0].experts"));
}

}  // namespace pipeline_plan_test
