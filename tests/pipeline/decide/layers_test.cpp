// Parts of layers: what is there, and what is left without some.
#include <slimtrim/pipeline/decide/layers.hpp>

#include <slimtrim/pipeline/synth_shape.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace pipeline_decide_layers_test {

using namespace slimtrim;

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

}  // namespace pipeline_decide_layers_test
