#include <slimtrim/model/decoder_layer.hpp>

#include <slimtrim/model/families/deepseek.hpp>

#include <doctest/doctest.h>

namespace model_decoder_layer_test {

using namespace slimtrim;

namespace {

// Hands out matrices whose only element tells which module was asked for.
class telling_weights final : public weight_source {
 public:
  bool has(module_id id) const override { return id.role == module_role::novice ? id.expert == 1 : true; }
  weight matrix(module_id id) const override {
    tensor<float, 2> one(1, 1);
    one(0, 0) = value(id);
    return own_weight(std::move(one));
  }
  std::vector<float> vector(module_id id) const override { return {value(id)}; }
  static float value(module_id id) {
    return static_cast<float>(static_cast<index_t>(id.role) + 100 * id.layer + 1000 * id.expert);
  }
};

float told(weight const& w) { return expand(w.view)(0, 0); }

}  // namespace

TEST_CASE("every part comes from its role; absent parts are not asked for") {
  model_config config;
  config.family = &deepseek_family;
  config.routing = deepseek_family.routing;
  config.layers.resize(3);
  config.layers[0].feed_forward = feed_forward_kind::dense;
  config.layers[1].experts = 3;
  config.layers[1].top_k = 2;
  config.layers[1].shared_intermediate = 4;
  config.layers[2].attention = false;
  config.layers[2].feed_forward = feed_forward_kind::none;
  telling_weights const source;
  auto const expected = [](module_role role, index_t layer, index_t expert = 0) {
    return telling_weights::value({role, layer, expert});
  };

  auto const dense = load_layer(config, source, 0);
  REQUIRE(dense.attention);
  CHECK(told(dense.attention->query) == expected(module_role::query, 0));
  CHECK(told(dense.attention->output) == expected(module_role::output, 0));
  CHECK(dense.attention->norm[0] == expected(module_role::attention_norm, 0));
  REQUIRE(dense.dense);
  CHECK(told(dense.dense->up) == expected(module_role::dense_up, 0));
  CHECK_FALSE(dense.moe);

  auto const moe = load_layer(config, source, 1);
  REQUIRE(moe.moe);
  CHECK(moe.moe->rule.top_k == 2);
  CHECK_FALSE(moe.moe->rule.renormalise);
  REQUIRE(moe.moe->experts.size() == 3);
  CHECK(told(moe.moe->experts[2].swiglu.down) == expected(module_role::down, 1, 2));
  CHECK_FALSE(moe.moe->experts[2].is_novice());
  CHECK(moe.moe->experts[1].is_novice());
  CHECK(moe.moe->experts[1].novice[0] == expected(module_role::novice, 1, 1));
  REQUIRE(moe.moe->shared);
  CHECK(told(moe.moe->shared->gate) == expected(module_role::shared_gate, 1));
  CHECK(moe.moe->selection_bias.empty());

  auto const nothing = load_layer(config, source, 2);
  CHECK_FALSE(nothing.attention);
  CHECK_FALSE(nothing.moe);
  CHECK_FALSE(nothing.dense);
  CHECK(nothing.feed_forward_norm.empty());

  auto ends = load_ends(config, source);
  CHECK(told(ends.head) == expected(module_role::head, 0));
  config.tied_embeddings = true;
  ends = load_ends(config, source);
  CHECK(told(ends.head) == expected(module_role::embedding, 0));
}

}  // namespace model_decoder_layer_test
