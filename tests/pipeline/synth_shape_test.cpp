// Shapes of synthetic models: defaults, config.json, refusals.
#include <slimtrim/pipeline/synth_shape.hpp>

#include <doctest/doctest.h>

#include <string>

namespace pipeline_synth_shape_test {

using namespace slimtrim;

namespace {
std::string refusal(synth_shape const& shape) {
  try {
    (void)synth_config(shape);
  } catch (usage_error const& failure) {
    return failure.what();
  }
  return "accepted";
}
}  // namespace

TEST_CASE("a Mixtral has experts everywhere") {
  synth_shape const shape{.layers = 3, .hidden = 64, .intermediate = 96, .experts = 4, .heads = 4, .key_value_heads = 2};
  model_config const config = synth_config(shape);
  CHECK(config.head_dim == 16);
  REQUIRE(config.layer_count() == 3);
  for (layer_config const& layer : config.layers) {
    CHECK(layer.feed_forward == feed_forward_kind::moe);
    CHECK(layer.experts == 4);
    CHECK(layer.shared_intermediate == 0);
  }
  ordered_json const json = synth_config_json(config, shape);
  CHECK(json["num_local_experts"] == 4);
  CHECK(json["intermediate_size"] == 96);
  CHECK(json["num_key_value_heads"] == 2);
  CHECK_FALSE(json.contains("head_dim"));
  CHECK_FALSE(json.contains("n_shared_experts"));
}

TEST_CASE("a DeepSeek has leading dense layers and shared experts") {
  synth_shape const shape{.family = "deepseek", .layers = 3, .hidden = 64, .intermediate = 32, .experts = 6, .top_k = 3,
                          .heads = 4, .head_dim = 8};
  model_config const config = synth_config(shape);
  CHECK(config.layer(0).feed_forward == feed_forward_kind::dense);
  CHECK(config.layer(0).intermediate == 32 * 5);
  CHECK(config.layer(1).shared_intermediate == 64);
  ordered_json const json = synth_config_json(config, shape);
  CHECK(json["moe_intermediate_size"] == 32);
  CHECK(json["intermediate_size"] == 160);
  CHECK(json["first_k_dense_replace"] == 1);
  CHECK(json["norm_topk_prob"] == false);
  CHECK(json["head_dim"] == 8);
}

TEST_CASE("refusals name the option") {
  CHECK(refusal({.family = "gpt"}) == "--family: expected one of mixtral, deepseek, found 'gpt'");
  CHECK(refusal({.top_k = 9}) == "--top-k: expected 1 to 8, found 9");
  CHECK(refusal({.hidden = 100}) == "--heads: expected a divisor of --hidden 100 (or --head-dim), found 8");
  CHECK(refusal({.key_value_heads = 3}) == "--kv-heads: expected a divisor of --heads 8, found 3");
  CHECK(refusal({.head_dim = 7}) == "--head-dim: expected an even number (rotary embeddings turn pairs), found 7");
  CHECK(refusal({.layers = 0}) == "--layers: expected 1 to 10000, found 0");
  CHECK(refusal({.vocabulary = 1}) != "accepted");
  CHECK(refusal({.family = "deepseek", .first_dense = 5}) == "--first-dense: expected 0 to 4, found 5");
  CHECK(refusal({.family = "deepseek", .shared_experts = -1}) != "accepted");
  CHECK(refusal({.hidden = -64}) != "accepted");
}

}  // namespace pipeline_synth_shape_test
