// Recipes as data: kinds of steps and their canonical spelling.
#include <slimtrim/pipeline/recipe.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace pipeline_recipe_test {

using namespace slimtrim;

TEST_CASE("every method is of one kind") {
  int trims = 0, slims = 0;
  for (std::size_t i = 0; i < method_names.size(); ++i) {
    step s;
    s.method = static_cast<method>(i);
    CHECK(to_string(s.method) == method_names[i]);
    CHECK_FALSE((is_trim(s) && is_slim(s)));
    trims += is_trim(s);
    slims += is_slim(s);
    CHECK(is_slim(s) == (is_quantization(s.method) || is_pruning(s.method)));
  }
  CHECK(trims == 7);
  CHECK(slims == 6);
}

TEST_CASE("a step says what it needs") {
  step s;
  s.method = method::rtn;
  CHECK(requirement_of(s) == requirement::weights);
  s.fit = fit_rule::residual;
  CHECK(requirement_of(s) == requirement::tokens);
  s = {};
  s.method = method::expert_drop;
  s.criterion = "reap";
  CHECK(needs_statistics(s));
  s.criterion = "aimer";
  CHECK(requirement_of(s) == requirement::weights);
  s.criterion = "reconstruction";
  CHECK(needs_data(s));
  s.method = method::layer_drop;
  s.criterion = "cosine";
  CHECK(needs_statistics(s));
  s.criterion = "greedy";
  CHECK(needs_data(s));
  // Where as many layers are named as go, nothing is ranked.
  s.layers = {1, 4};
  s.count = 2;
  CHECK(requirement_of(s) == requirement::weights);
  s.criterion = "cosine";
  CHECK(requirement_of(s) == requirement::weights);
  s.protect_last = 1;
  CHECK(needs_statistics(s));
  s.protect_last = 0;
  s.count = 1;
  CHECK(needs_statistics(s));
  s.method = method::expert_drop;
  s.count = 2;
  s.criterion = "reap";
  CHECK(needs_statistics(s));
  s = {};
  for (method const m : {method::recover, method::gptq, method::awq, method::wanda, method::sparsegpt}) {
    s.method = m;
    CHECK(needs_data(s));
  }
}

TEST_CASE("canonical spelling leaves defaults out") {
  step drop;
  drop.method = method::layer_drop;
  drop.count = 8;
  drop.criterion = "cosine";
  CHECK(short_form(drop) == "layer_drop:8");
  drop.criterion = "greedy_kl";
  CHECK(short_form(drop) == "layer_drop:8@greedy_kl");

  step experts;
  experts.method = method::expert_drop;
  experts.count = 6;
  experts.of = 8;
  experts.criterion = "reap";
  CHECK(short_form(experts) == "expert_drop:6/8");
  experts.global = true;
  CHECK(short_form(experts) == "expert_drop:6/8@global_reap");

  step grid;
  grid.method = method::awq;
  grid.quantization = default_quantization(method::awq, 4, 128);
  CHECK(short_form(grid) == "awq:4g128");
  grid.quantization.zero_points = false;
  grid.quantization.scale = scale_rule::mse;
  CHECK(short_form(grid) == "awq:4g128s");  // awq searches its ranges by itself
  grid.method = method::rtn;
  grid.quantization = default_quantization(method::rtn, 8, 0);
  CHECK(short_form(grid) == "rtn:8");

  step prune;
  prune.method = method::wanda;
  for (double const percent : {50.0, 7.0, 33.3, 0.1, 99.9}) {
    prune.sparsity.fraction = percent / 100;
    std::string const text = short_form(prune);
    CHECK(std::stod(text.substr(6)) / 100 == prune.sparsity.fraction);
    CHECK(text.size() <= std::string("wanda:33.3%").size());
  }
  prune.sparsity = {0.5, 2, 4};
  CHECK(short_form(prune) == "wanda:2:4");
}

TEST_CASE("a recipe is one line when one line can say it") {
  step drop;
  drop.method = method::block_drop;
  drop.count = 2;
  drop.criterion = "cosine";
  step grid;
  grid.method = method::gptq;
  grid.quantization = default_quantization(method::gptq, 3, 128);
  recipe r{"", {drop, grid}};
  CHECK(to_string(r) == "block_drop:2+gptq:3g128");
  r.steps[1].targets = {"experts", "a\"b*"};
  r.steps[1].layers = {1, 2};
  r.steps[0].protect_last = 1;
  CHECK(to_string(r) ==
        "[[step]]\nmethod = \"block_drop:2\"\nprotect_last = 1\n\n"
        "[[step]]\nmethod = \"gptq:3g128\"\ntargets = [\"experts\", \"a\\\"b*\"]\nlayers = [1, 2]\n");
  CHECK(to_string(recipe{}).empty());
}

}  // namespace pipeline_recipe_test
