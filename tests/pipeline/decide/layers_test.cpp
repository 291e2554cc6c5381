// Parts of layers: what is there, and what is left without some.
#include <slimtrim/pipeline/decide/layers.hpp>

#include <pipeline/support.hpp>

#include <slimtrim/pipeline/recipe_text.hpp>
#include <slimtrim/pipeline/synth_shape.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace pipeline_decide_layers_test {

using namespace slimtrim;
using namespace pipeline_tests;

TEST_CASE("parts that a layer has and loses") {
  model_config const config = synth_config({.family = "deepseek", .layers = 3, .hidden = 32, .intermediate = 48, .experts = 4, .heads = 2,
                                            .vocabulary = 300, .shared_experts = 1});
  plan p = keep_everything(config);
  CHECK_FALSE(detail::has_part(p, config, layer_part::moe, 0));
  CHECK(detail::has_part(p, config, layer_part::moe, 1));
  CHECK(detail::has_part(p, config, layer_part::attention, 0));
  std::vector<index_t> const both{1, 2}, one{2};
  p = detail::without_parts(p, layer_part::attention, both);
  CHECK_FALSE(detail::has_part(p, config, layer_part::attention, 1));
  CHECK(detail::has_part(p, config, layer_part::block, 1));
  p = detail::without_parts(p, layer_part::moe, one);
  CHECK_FALSE(p.layer(2).feed_forward);
  p = detail::without_parts(p, layer_part::block, one);
  CHECK_FALSE(detail::has_part(p, config, layer_part::attention, 2));
  CHECK_FALSE(detail::has_part(p, config, layer_part::block, 2));
}

TEST_CASE("as many as are named: no choice, nothing measured") {
  recipe r = parse_recipe("block_drop:2+layer_drop:4");
  r.steps[0].layers = {3, 5};
  r.steps[1].layers = {0, 1, 2, 7};
  plan const p = decide_recipe(r, {.model = &bundled()});
  for (index_t i = 0; i < 8; ++i) {
    CHECK(p.layer(i).block == (i != 3 && i != 5));
    CHECK(p.layer(i).feed_forward == (i == 3 || i == 4 || i == 5 || i == 6));
  }
  r.steps[1].layers = {0, 3, 5};
  r.steps[1].count = 2;
  CHECK(message_of<error>([&] { static_cast<void>(decide_recipe(r, {.model = &bundled()})); }) != "nothing thrown");
}

}  // namespace pipeline_decide_layers_test
