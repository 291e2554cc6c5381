// Recipes as TOML: keys, their limits, and where messages point.
#include <slimtrim/pipeline/recipe_toml.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace pipeline_recipe_toml_test {

using namespace slimtrim;

namespace {
std::string refusal(std::string const& text) {
  try {
    (void)parse_recipe_toml(text, "r.toml");
  } catch (usage_error const& failure) {
    return failure.what();
  }
  return "accepted";
}
std::string one(std::string const& lines) { return "[[step]]\n" + lines + "\n"; }
}  // namespace

TEST_CASE("tables are steps, in order") {
  recipe const r = parse_recipe_toml(R"(
# comments are allowed
[[step]]
method = "expert_drop:6/8"
criterion = "global_reap"
protect_first = 1

[[step]]
method = "gptq:4g128"
bits = 2
scale = "mse"
fit = "none"
targets = ["experts", "model.layers.*.self_attn.q_proj.weight"]
layers = [3, 1]
)",
                                     "r.toml");
  REQUIRE(r.steps.size() == 2);
  CHECK(r.steps[0].criterion == "reap");
  CHECK(r.steps[0].global);
  CHECK(r.steps[0].protect_first == 1);
  CHECK(r.steps[1].quantization.bits == 2);
  CHECK(r.steps[1].quantization.order == sweep_order::natural);
  CHECK(r.steps[1].quantization.descent > 0);
  CHECK(r.steps[1].quantization.scale == scale_rule::mse);
  CHECK(r.steps[1].fit == fit_rule::none);
  CHECK(r.steps[1].layers == std::vector<index_t>{1, 3});
  CHECK(r.steps[1].targets.size() == 2);
  // The canonical form is TOML here, and reads back.
  CHECK(parse_recipe_toml(to_string(r), "again").steps == r.steps);
}

TEST_CASE("zero points and order can be chosen") {
  recipe const r = parse_recipe_toml(one("method = \"awq:4g128\"\nzero_points = false") +
                                         one("method = \"gptq:4g128\"\norder = \"natural\"\nscale = \"absmax\"\ndescent = 2"),
                                     "r.toml");
  CHECK_FALSE(r.steps[0].quantization.zero_points);
  CHECK(r.steps[1].quantization.order == sweep_order::natural);
  CHECK(r.steps[1].quantization.scale == scale_rule::absmax);
  CHECK(r.steps[1].quantization.descent == 2);
  CHECK(parse_recipe("gptq:3g128").steps[0].quantization.descent > 0);
  CHECK(parse_recipe_toml(to_string(r), "again").steps == r.steps);
}

TEST_CASE("channel scales, ridges and how the pass over tokens goes") {
  recipe const r = parse_recipe_toml(one("method = \"awq:4g128\"\nscales = \"power_of_two\"\nfit = \"residual\"") +
                                         one("method = \"gptq:3g128\"\nscales = \"folded\"\nridges = [0.1, 1, 3e-2]\nsequential = false\naffinity = false"),
                                     "r.toml");
  CHECK(r.steps[0].quantization.scales == channel_scales::power_of_two);
  CHECK(r.steps[0].fit == fit_rule::residual);
  CHECK(r.steps[1].quantization.scales == channel_scales::folded);
  CHECK(r.steps[1].ridges == std::vector<double>{0.1, 1, 0.03});
  CHECK_FALSE(r.steps[1].sequential);
  CHECK_FALSE(r.steps[1].affinity);
  CHECK(parse_recipe_toml(to_string(r), "again").steps == r.steps);
  CHECK(parse_recipe("awq:4g128+gptq:4g128").steps[0].quantization.scales == channel_scales::folded);
  CHECK(parse_recipe("awq:4g128+gptq:4g128").steps[1].quantization.scales == channel_scales::none);
  for (char const* const lines :
       {"method = \"rtn:4\"\nscales = \"folded\"", "method = \"awq:4\"\nscales = \"yes\"", "method = \"wanda:50%\"\nscales = \"none\"",
        "method = \"rtn:4\"\nridges = [0.1]", "method = \"gptq:4\"\nridges = []", "method = \"gptq:4\"\nridges = [0]",
        "method = \"gptq:4\"\nridges = [\"1\"]", "method = \"gptq:4\"\nridges = [nan]", "method = \"layer_drop:1\"\nsequential = false",
        "method = \"rtn:4\"\naffinity = false", "method = \"gptq:4\"\naffinity = 1", "method = \"rtn:4\"\ndescent = 1",
        "method = \"gptq:4\"\ndescent = -1", "method = \"gptq:4\"\ndescent = 1001"})
    CHECK_MESSAGE(refusal(one(lines)) != "accepted", lines);
}

TEST_CASE("refusals name the file, the step and the key") {
  CHECK(refusal(one("method = \"rtn:4g128\"\nbits = 5")) == "r.toml: step 1: bits: expected 2, 3, 4 or 8, found 5");
  CHECK(refusal(one("method = \"rtn:4g128\"\nscale = \"best\"")) ==
        "r.toml: step 1: scale: expected absmax, mse or weighted, found 'best'");
  CHECK(refusal(one("method = \"rtn:5\"")) ==
        "r.toml: step 1: method 'rtn:5': bits: expected 2, 3, 4 or 8, as in 4g128, found '5'");
  CHECK(refusal(one("method = \"gptq:4\"\ndescent = 1001")) == "r.toml: step 1: descent: expected a whole number from 0 to 1000, found 1001");
  CHECK(refusal(one("method = \"gptq:4\"\ndescent = 1000")) == "accepted");
  // Norms are no matrices: nothing that slims could ever match them.
  CHECK(refusal(one("method = \"rtn:4\"\ntargets = [\"norms\"]")) ==
        "r.toml: step 1: targets: expected experts, attention, shared_experts, dense, lm_head, embedding or router, or a glob of tensor "
        "names with * or ?, found [ 'norms' ]");
  CHECK(refusal(one("methd = \"rtn:4\"")) ==
        "r.toml: step 1: method: expected a string such as \"rtn:4g128\", found nothing");
  CHECK(refusal("[[step]\nmethod = 1").find("r.toml: line 1, column ") == 0);
  CHECK(refusal("x = 1") == "r.toml: expected only [[step]] tables, found 'x'");
  CHECK(refusal("") == "r.toml: expected at least one [[step]], found none");
  CHECK(refusal("step = [1]") == "r.toml: step 1: expected a table");
  for (char const* const lines :
       {"method = 4", "method = \"rtn:4\"\nbits = 4.0", "method = \"rtn:4\"\nbits = \"4\"",
        "method = \"rtn:4\"\nspeed = 1", "method = \"layer_drop:1\"\nbits = 4", "method = \"rtn:4\"\ntargets = []",
        "method = \"rtn:4\"\ntargets = [\"expert\"]", "method = \"rtn:4\"\ntargets = \"experts\"",
        "method = \"layer_drop:1\"\ntargets = [\"experts\"]", "method = \"rtn:4\"\nlayers = [1, 1]",
        "method = \"rtn:4\"\nlayers = [-1]", "method = \"rtn:4\"\nprotect_first = 1",
        "method = \"layer_drop:1\"\nprotect_last = -1", "method = \"rtn:4\"\nscale = \"weighted\"",
        "method = \"rtn:4\"\norder = \"activation\"", "method = \"rtn:4\"\nfit = \"residual\"",
        "method = \"expert_drop:6/8@reap\"\ncriterion = \"ean\"", "method = \"rtn:4\"\ngroup = -1",
        "method = \"rtn:4\"\nzero_points = 1", "method = \"rtn:4\"\ncriterion = 1"})
    CHECK_MESSAGE(refusal(one(lines)) != "accepted", lines);
}

TEST_CASE("--recipe takes a name, a line or a file") {
  CHECK(load_recipe("mixtral-awq").steps.size() == 1);
  CHECK(load_recipe("recover").steps.size() == 1);
  CHECK_THROWS_AS((void)load_recipe("absent.toml"), input_error);
  CHECK_THROWS_AS((void)load_recipe("absent"), usage_error);
  CHECK_THROWS_AS((void)load_recipe("rtn:4g128+rtn:8"), usage_error);
  auto const path = std::filesystem::temp_directory_path() / "slimtrim_recipe_toml_test.toml";
  std::ofstream(path) << one("method = \"rtn:4g128\"");
  CHECK(load_recipe(path.string()).steps.size() == 1);
  std::filesystem::remove(path);
}

}  // namespace pipeline_recipe_toml_test
