// What no model could take is refused before there is one, by class of matrices and by layer.
#include <slimtrim/pipeline/check_recipe.hpp>
#include <slimtrim/pipeline/recipe_text.hpp>
#include <slimtrim/pipeline/recipe_toml.hpp>

#include <doctest/doctest.h>

#include <string>

namespace pipeline_check_recipe_test {

using namespace slimtrim;

namespace {

std::string refusal(recipe const& r) {
  try {
    check_recipe(r, "recipe");
  } catch (usage_error const& failure) {
    return failure.what();
  }
  return "accepted";
}
std::string of_line(std::string const& text) { return refusal(parse_recipe(text)); }
// Two quantisers, each with the lines of its table.
std::string of_two(std::string const& first, std::string const& second) {
  return refusal(parse_recipe_toml("[[step]]\nmethod = \"rtn:4g128\"\n" + first + "\n[[step]]\nmethod = \"rtn:8\"\n" + second + "\n", "r.toml"));
}

}  // namespace

TEST_CASE("a matrix is packed once, and nothing comes behind") {
  CHECK(of_line("rtn:4g128+rtn:8") == "recipe: step 'rtn:8': 'experts': expected once, is packed already by 'rtn:4g128'");
  CHECK(of_line("gptq:4g128+wanda:50%") == "recipe: step 'wanda:50%': 'experts': expected once, is packed already by 'gptq:4g128'");
  CHECK(of_line("awq:4g128+rtn:4g128") != "accepted");
  for (char const* const good : {"awq:4g128+gptq:4g128", "sparsegpt:2:4+gptq:4g64", "magnitude:50%+rtn:4g128", "rtn:4g128+recover",
                                 "layer_drop:2+rtn:4g128+block_drop:1", "mixtral-l8-awq"})
    CHECK_MESSAGE(of_line(good) == "accepted", good);
}

TEST_CASE("steps meet where their classes and layers do; patterns wait for a model") {
  CHECK(of_two("targets = [\"experts\"]", "targets = [\"attention\", \"dense\"]") == "accepted");
  CHECK(of_two("targets = [\"attention\"]", "") == "recipe: step 'rtn:8': 'attention': expected once, is packed already by 'rtn:4g128'");
  CHECK(of_two("layers = [0, 2]", "layers = [1, 3]") == "accepted");
  CHECK(of_two("layers = [0, 2]", "layers = [2]") != "accepted");
  CHECK(of_two("", "layers = [2]") != "accepted");
  CHECK(of_two("targets = [\"lm_head\"]", "targets = [\"lm_head\"]") != "accepted");
  CHECK(of_two("targets = [\"router\"]\nlayers = [0]", "targets = [\"router\"]\nlayers = [0]") != "accepted");
  CHECK(of_two("targets = [\"*.w2.weight\"]", "targets = [\"*.w2.weight\"]") == "accepted");
}

TEST_CASE("what works on tokens needs matrices that see some") {
  for (std::string const target : {"lm_head", "embedding", "router"}) {
    std::string const said = refusal(parse_recipe_toml("[[step]]\nmethod = \"gptq:4g128\"\ntargets = [\"" + target + "\"]\n", "r.toml"));
    CHECK_MESSAGE(said.find("step 'gptq:4g128': '" + target + "': works on tokens") != std::string::npos, said);
  }
}

TEST_CASE("consecutive blocks, of a model that has all of them") {
  CHECK(of_line("block_drop:2@consecutive") == "accepted");
  CHECK(of_line("layer_drop:2@consecutive").find("consecutive is a way to drop blocks") != std::string::npos);
  CHECK(of_line("attention_drop:2@consecutive") != "accepted");
  CHECK(of_line("layer_drop:1+block_drop:2@consecutive") == "accepted");
  CHECK(of_line("block_drop:1+block_drop:2@consecutive").find("no earlier step took blocks from") != std::string::npos);
}

}  // namespace pipeline_check_recipe_test
