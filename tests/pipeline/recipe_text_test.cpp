// One-line recipes: what is read, and the exact message of what is refused.
#include <slimtrim/pipeline/recipe_text.hpp>

#include <doctest/doctest.h>

#include <string>

namespace pipeline_recipe_text_test {

using namespace slimtrim;

namespace {
std::string refusal(std::string const& text) {
  try {
    (void)parse_recipe(text);
  } catch (usage_error const& failure) {
    CHECK(failure.kind() == fault::usage);
    return failure.what();
  }
  return "accepted";
}
}  // namespace

TEST_CASE("the example of the design") {
  recipe const r = parse_recipe("layer_drop:8+awq:4g128");
  REQUIRE(r.steps.size() == 2);
  CHECK(r.steps[0].method == method::layer_drop);
  CHECK(r.steps[0].count == 8);
  CHECK(r.steps[0].criterion == "cosine");
  CHECK(r.steps[1].method == method::awq);
  CHECK(r.steps[1].quantization.bits == 4);
  CHECK(r.steps[1].quantization.group == 128);
  CHECK(r.steps[1].quantization.zero_points);
  CHECK(r.text == "layer_drop:8+awq:4g128");
}

TEST_CASE("built-in names follow the table of the paper") {
  for (built_in_recipe const& known : built_in_recipes) {
    recipe const r = parse_recipe(known.name);
    CHECK(to_string(r) == known.text);
    CHECK(r.text == known.name);
    CHECK(r.steps.back().method == method::awq);
  }
  recipe const e2 = parse_recipe("mixtral-e2-awq");
  CHECK(e2.steps[0].count == 6);
  CHECK(e2.steps[0].of == 8);
  CHECK(e2.steps[0].global);
  CHECK(e2.steps[0].criterion == "router_probability");
  CHECK(parse_recipe("deepseek-e16-awq").steps[0].count == 48);
}

TEST_CASE("reading the canonical spelling gives the same steps") {
  for (char const* const text :
       {"layer_drop:1", "block_drop:2@greedy_kl", "attention_drop:3@angular", "expert_drop:6/8@global_reap",
        "expert_merge:4/8@ream", "novice:7/8", "neuron_drop:512", "recover", "rtn:4g128", "rtn:8", "rtn:2g32zm",
        "rtn:2g32mz", "gptq:3g128", "gptq:2g128m", "awq:4g64s", "magnitude:50%", "wanda:2:4", "sparsegpt:37.5%",
        "expert_drop:6/8@global", "layer_drop:2+recover+gptq:4g128"}) {
    recipe const once = parse_recipe(text);
    recipe const twice = parse_recipe(to_string(once));
    CHECK(once.steps == twice.steps);
    CHECK(to_string(once) == to_string(twice));
  }
  CHECK(to_string(parse_recipe(" rtn:2g32zm + recover ")) == "rtn:2g32zm+recover");
  CHECK(to_string(parse_recipe("rtn:2g32mz")) == "rtn:2g32zm");
  CHECK(to_string(parse_recipe("expert_drop:6/8@reap")) == "expert_drop:6/8");
  CHECK(to_string(parse_recipe("expert_drop:6/8@global")) == "expert_drop:6/8@global_reap_residual");
  CHECK(to_string(parse_recipe("wanda:50.0%")) == "wanda:50%");
}

TEST_CASE("the rules of GPTQ follow the width") {
  quantization_step const four = parse_recipe("gptq:4g128").steps[0].quantization;
  CHECK(four.scale == scale_rule::weighted);
  CHECK(four.order == sweep_order::activation);
  quantization_step const two = parse_recipe("gptq:2g128m").steps[0].quantization;
  CHECK(two.scale == scale_rule::mse);
  CHECK(two.order == sweep_order::natural);
  CHECK(parse_recipe("wanda:2:8").steps[0].sparsity.fraction == 0.75);
}

TEST_CASE("what cannot be understood is named with its step") {
  CHECK(refusal("layer_drop:8+rtn:5g128") ==
        "recipe: step 2 'rtn:5g128': bits: expected 2, 3, 4 or 8, as in 4g128, found '5g128'");
  CHECK(refusal("layer_drop:0") ==
        "recipe: step 1 'layer_drop:0': amount: expected a whole number from 1 (how many go), found '0'");
  CHECK(refusal("layer_drop:") ==
        "recipe: step 1 'layer_drop:': amount: expected a whole number from 1 (how many go), found ''");
  CHECK(refusal("expert_drop:2") ==
        "recipe: step 1 'expert_drop:2': amount: expected kept/all experts such as 6/8, found '2'");
  CHECK(refusal("expert_drop:9/8") ==
        "recipe: step 1 'expert_drop:9/8': amount: expected kept/all experts such as 6/8, found '9/8'");
  CHECK(refusal("layer_drop:2@best") ==
        "recipe: step 1 'layer_drop:2@best': criterion: expected cosine, cosine_without_norm, angular, greedy, "
        "greedy_kl, exhaustive_kl, consecutive or random, found 'best'");
  CHECK(refusal("rtn:4g128@reap") ==
        "recipe: step 1 'rtn:4g128@reap': criterion: expected none for this method, found 'reap'");
  CHECK(refusal("recover:1") == "recipe: step 1 'recover:1': amount: expected none, found '1'");
  CHECK(refusal("wanda:4:2") ==
        "recipe: step 1 'wanda:4:2': amount: expected kept:group with 1 <= kept < group <= 64, found '4:2'");
  CHECK(refusal("wanda:100%") ==
        "recipe: step 1 'wanda:100%': amount: expected a percentage above 0 and below 100, found '100%'");
  CHECK(refusal("rtn:4g128q") == "recipe: step 1 'rtn:4g128q': suffix: expected z (zero points), s (symmetric) or m "
                                 "(searched scale), found 'q'");
  CHECK(refusal("") == "recipe: expected at least one step, found nothing");
  CHECK(refusal("layer_drop:1++recover").find("step 2 ''") != std::string::npos);
  CHECK(refusal("mixtral-l9-awq").find("mixtral-l8-awq") != std::string::npos);
  for (char const* const text :
       {"rtn", "rtn:", "rtn:4g", "rtn:4g0", "rtn:4zz", "rtn:4zs", "rtn:-4", "rtn:4g99999999999999999999", "wanda:nan%",
        "wanda:%", "wanda:-1%", "wanda:2:4:8", "wanda:0:4", "wanda:1:65", "novice:/8", "novice:1/", "novice:0/8",
        "layer_drop:1.5", "layer_drop:+1", "expert_drop:6/8@", "expert_drop:6/8@globally",
        "expert_merge:6/8@global_average", "neuron_drop:8@reap", "@", "layer_drop:8@global_cosine"})
    CHECK_MESSAGE(refusal(text) != "accepted", text);
}

}  // namespace pipeline_recipe_text_test
