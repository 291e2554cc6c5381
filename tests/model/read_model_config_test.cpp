#include <slimtrim/model/read_model_config.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace model_read_model_config_test {

using namespace slimtrim;

namespace {

ordered_json mixtral() {
  return parse_json(R"({"model_type": "mixtral", "vocab_size": 40, "hidden_size": 24, "intermediate_size": 20,
    "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "num_local_experts": 5,
    "num_experts_per_tok": 2, "hidden_act": "silu", "rms_norm_eps": 1e-06, "rope_theta": 5000.0,
    "torch_dtype": "bfloat16"})",
                    "config.json");
}

ordered_json deepseek() {
  return parse_json(R"({"model_type": "deepseek", "vocab_size": 40, "hidden_size": 24, "intermediate_size": 50,
    "moe_intermediate_size": 10, "num_hidden_layers": 4, "num_attention_heads": 4, "n_routed_experts": 6,
    "n_shared_experts": 2, "num_experts_per_tok": 3, "first_k_dense_replace": 1, "moe_layer_freq": 1})",
                    "config.json");
}

std::string refusal(ordered_json const& config) {
  try {
    static_cast<void>(read_model_config(config, "config.json"));
  } catch (input_error const& e) {
    return e.what();
  }
  return "accepted";
}

std::string refusal_with(ordered_json config, char const* key, ordered_json value) {
  config[key] = std::move(value);
  return refusal(config);
}

bool contains(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("Mixtral: dimensions, defaults and the routing rule") {
  auto const m = read_model_config(mixtral(), "config.json");
  CHECK(m.family == &mixtral_family);
  CHECK(m.hidden == 24);
  CHECK(m.heads == 6);
  CHECK(m.key_value_heads == 2);
  CHECK(m.head_dim == 4);
  CHECK(m.vocabulary == 40);
  CHECK(m.rms_epsilon == 1e-6);
  CHECK(m.rope_theta == 5000);
  CHECK_FALSE(m.tied_embeddings);
  CHECK(m.storage == dtype::bfloat16);
  REQUIRE(m.layer_count() == 3);
  for (layer_config const& layer : m.layers) {
    CHECK(layer.attention);
    CHECK(layer.feed_forward == feed_forward_kind::moe);
    CHECK(layer.experts == 5);
    CHECK(layer.top_k == 2);
    CHECK(layer.intermediate == 20);
    CHECK(layer.shared_intermediate == 0);
    CHECK(layer.original_expert(3) == 3);
  }
  CHECK(m.layer_rule(1).renormalise);
  CHECK(m.layer_rule(1).top_k == 2);
}

TEST_CASE("DeepSeek: leading dense layers, shared experts, weights not renormalised") {
  auto const m = read_model_config(deepseek(), "config.json");
  CHECK(m.key_value_heads == 4);
  CHECK(m.layer(0).feed_forward == feed_forward_kind::dense);
  CHECK(m.layer(0).intermediate == 50);
  CHECK(m.layer(0).experts == 0);
  CHECK(m.layer(1).feed_forward == feed_forward_kind::moe);
  CHECK(m.layer(1).intermediate == 10);
  CHECK(m.layer(1).shared_intermediate == 20);
  CHECK_FALSE(m.routing.renormalise);
  ordered_json other = deepseek();
  other["norm_topk_prob"] = true;
  other["n_shared_experts"] = nullptr;
  other["first_k_dense_replace"] = 0;
  other["moe_layer_freq"] = 2;
  auto const n = read_model_config(other, "config.json");
  CHECK(n.routing.renormalise);
  CHECK(n.layer(0).feed_forward == feed_forward_kind::moe);
  CHECK(n.layer(1).feed_forward == feed_forward_kind::dense);
  CHECK(n.layer(2).shared_intermediate == 0);
  other["n_routed_experts"] = nullptr;
  CHECK(read_model_config(other, "config.json").layer(2).feed_forward == feed_forward_kind::dense);
}

TEST_CASE("per-layer expert lists") {
  ordered_json config = mixtral();
  config["num_local_experts"] = parse_json("[5, -1, 1]", "");
  config["layer_experts_idx"] = parse_json("[[0, 1, 2, 4, 7], [], [6]]", "");
  auto const m = read_model_config(config, "config.json");
  CHECK(m.layer(0).experts == 5);
  CHECK(m.layer(0).original_expert(4) == 7);
  CHECK(m.layer(1).feed_forward == feed_forward_kind::none);
  CHECK(m.layer(1).attention);
  CHECK(m.layer(2).top_k == 1);
  CHECK(m.layer(2).original_expert(0) == 6);

  ordered_json deep = deepseek();
  deep["n_routed_experts"] = parse_json("[null, 4, -1, null]", "");
  auto const d = read_model_config(deep, "config.json");
  CHECK(d.layer(0).feed_forward == feed_forward_kind::dense);
  CHECK(d.layer(1).experts == 4);
  CHECK(d.layer(2).feed_forward == feed_forward_kind::none);
  CHECK(d.layer(3).feed_forward == feed_forward_kind::dense);

  CHECK(contains(refusal_with(mixtral(), "num_local_experts", parse_json("[5, 0, 5]", "")), "norm kept: not supported"));
  CHECK(contains(refusal_with(mixtral(), "num_local_experts", parse_json("[5, 5]", "")), "a list of 3 entries"));
  CHECK(contains(refusal_with(mixtral(), "num_local_experts", parse_json("[5, null, 5]", "")), "no dense layers"));
  CHECK(contains(refusal_with(mixtral(), "num_local_experts", parse_json("[5, -2, 5]", "")), "num_local_experts"));
  CHECK(contains(refusal_with(deepseek(), "n_routed_experts", parse_json("[4, 4, 4, 4]", "")), "null for a layer"));
  CHECK(contains(refusal_with(config, "layer_experts_idx", parse_json("[[0, 1, 2, 4, 4], [], [6]]", "")), "4 twice"));
  CHECK(contains(refusal_with(config, "layer_experts_idx", parse_json("[[0, 1, 2], [], [6]]", "")), "a list of 5"));
  CHECK(contains(refusal_with(config, "layer_experts_idx", parse_json("[[0, 1, 2, 3, -4], [], [6]]", "")), "-4"));
}

TEST_CASE("LLM-Drop's lists, as numbers and as booleans") {
  ordered_json config = mixtral();
  config["drop_mlp_list"] = parse_json("[2, 0]", "");
  config["drop_attn_list"] = parse_json("[false, true, false]", "");
  auto const m = read_model_config(config, "config.json");
  CHECK(m.layer(0).feed_forward == feed_forward_kind::none);
  CHECK(m.layer(1).feed_forward == feed_forward_kind::moe);
  CHECK(m.layer(2).feed_forward == feed_forward_kind::none);
  CHECK(m.layer(0).attention);
  CHECK_FALSE(m.layer(1).attention);
  CHECK(contains(refusal_with(mixtral(), "drop_mlp_list", parse_json("[3]", "")), "drop_mlp_list"));
  CHECK(contains(refusal_with(mixtral(), "drop_mlp_list", parse_json("[true]", "")), "drop_mlp_list"));
  CHECK(contains(refusal_with(mixtral(), "drop_attn_list", parse_json("[true, 1, false]", "")), "drop_attn_list"));
  CHECK(contains(refusal_with(mixtral(), "drop_attn_list", 1), "drop_attn_list"));
}

TEST_CASE("every numeric field refuses every hostile value by name") {
  std::vector<ordered_json> const values{"7", -1, 0, std::uint64_t{1} << 31, std::uint64_t{1} << 63, 1e300, 1.5,
                                         ordered_json::array({1}), ordered_json::object()};
  for (auto const& base : {mixtral(), deepseek()})
    for (auto const& [key, original] : base.items()) {
      if (!original.is_number() || key == "rms_norm_eps" || key == "rope_theta") continue;
      for (ordered_json const& value : values) {
        // Zero of these is meaningful.
        if (value == 0 && (key == "n_shared_experts" || key == "first_k_dense_replace")) continue;
        std::string const message = refusal_with(base, key.c_str(), value);
        CAPTURE(key);
        CAPTURE(message);
        CHECK(contains(message, "config.json: field '" + key + "'"));
      }
      ordered_json without = base;
      without.erase(key);
      bool const optional = key == "num_key_value_heads" || key == "n_shared_experts" ||
                            key == "first_k_dense_replace" || key == "moe_layer_freq";
      CHECK(contains(refusal(without), optional ? "accepted" : "field '" + key + "'"));
    }
  for (char const* const key : {"rms_norm_eps", "rope_theta"})
    for (ordered_json const& value : {ordered_json("1"), ordered_json(-1), ordered_json(1e300)})
      CHECK(contains(refusal_with(mixtral(), key, value), key));
}

TEST_CASE("contradictions and what the forward pass does not do") {
  CHECK(contains(refusal_with(mixtral(), "num_experts_per_tok", 6), "at most the number of experts (5)"));
  CHECK(contains(refusal_with(mixtral(), "num_key_value_heads", 4), "divisor"));
  CHECK(contains(refusal_with(mixtral(), "num_attention_heads", 10), "num_attention_heads"));
  CHECK(contains(refusal_with(mixtral(), "head_dim", 3), "even"));
  CHECK(contains(refusal_with(mixtral(), "head_dim", 1 << 24), "head_dim"));
  CHECK(contains(refusal_with(mixtral(), "hidden_act", "gelu"), "silu"));
  CHECK(contains(refusal_with(mixtral(), "attention_bias", true), "attention_bias"));
  CHECK(contains(refusal_with(mixtral(), "rope_scaling", parse_json(R"({"type": "yarn", "factor": 4})", "")), "yarn"));
  CHECK(contains(refusal_with(mixtral(), "rope_scaling", parse_json(R"({"type": "linear"})", "")), "factor"));
  CHECK(contains(refusal_with(deepseek(), "scoring_func", "sigmoid"), "sigmoid"));
  CHECK(contains(refusal_with(deepseek(), "topk_method", "noaux_tc"), "noaux_tc"));
  CHECK(contains(refusal_with(deepseek(), "n_group", 8), "n_group"));
  CHECK(contains(refusal_with(deepseek(), "n_shared_experts", 65536), "accepted"));
  CHECK(refusal_with(mixtral(), "rope_scaling", nullptr) == "accepted");
  ordered_json linear = mixtral();
  linear["rope_scaling"] = parse_json(R"({"rope_type": "linear", "factor": 4})", "");
  CHECK(read_model_config(linear, "config.json").rope_factor == 4);
  ordered_json window = mixtral();
  window["sliding_window"] = 64;
  CHECK(read_model_config(window, "config.json").sliding_window == 64);
}

TEST_CASE("unknown families are refused with the known ones") {
  CHECK(refusal_with(mixtral(), "model_type", "gpt2\n") ==
        "config.json: field 'model_type': expected one of mixtral, deepseek, found 'gpt2\\x0a'");
  CHECK(contains(refusal_with(mixtral(), "model_type", 3), "model_type"));
}

}  // namespace model_read_model_config_test
