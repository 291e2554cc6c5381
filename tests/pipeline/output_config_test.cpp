// config.json of a trimmed model: what stock loaders understand where possible, lists where layers differ, the rest untouched.
#include <slimtrim/pipeline/output_config.hpp>

#include <slimtrim/model/read_model_config.hpp>
#include <slimtrim/pipeline/synth_shape.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace pipeline_output_config_test {

using namespace slimtrim;

namespace {

ordered_json mixtral_json() {
  return ordered_json::parse(R"({"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "zeta": {"a": [1, null]},
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2,
    "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2, "hidden_act": "silu", "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "alpha": "kept"})");
}

ordered_json deepseek_json() {
  synth_shape const shape{.family = "deepseek", .layers = 4, .hidden = 32, .intermediate = 48, .experts = 4, .heads = 2,
                          .vocabulary = 300, .shared_experts = 1, .first_dense = 2};
  return synth_config_json(synth_config(shape), shape);
}

std::vector<std::string> keys_of(ordered_json const& object) {
  std::vector<std::string> keys;
  for (auto const& item : object.items()) keys.push_back(item.key());
  return keys;
}

// Writes the output config, reads it back as a model and compares it with what the plan says.
ordered_json checked(ordered_json const& input, plan const& p) {
  model_config const config = read_model_config(input, "in");
  ordered_json const out = output_config(input, config, p, "in");
  model_config const expected = planned_config(config, p), read = read_model_config(out, "out");
  REQUIRE(read.layer_count() == expected.layer_count());
  for (index_t i = 0; i < read.layer_count(); ++i) {
    CAPTURE(i);
    CHECK(read.layer(i).attention == expected.layer(i).attention);
    CHECK(read.layer(i).feed_forward == expected.layer(i).feed_forward);
    CHECK(read.layer(i).experts == expected.layer(i).experts);
    CHECK(read.layer(i).top_k == expected.layer(i).top_k);
    CHECK(read.layer(i).intermediate == expected.layer(i).intermediate);
    for (index_t e = 0; e < read.layer(i).experts; ++e)
      CHECK(read.layer(i).original_expert(e) == expected.layer(i).original_expert(e));
  }
  return out;
}

plan whole(ordered_json const& input) { return keep_everything(read_model_config(input, "in")); }

}  // namespace

TEST_CASE("nothing to do: the same document, keys in order") {
  for (ordered_json const& input : {mixtral_json(), deepseek_json()}) {
    ordered_json const out = checked(input, whole(input));
    CHECK(out.dump() == input.dump());
  }
}

TEST_CASE("equal numbers of experts are one number") {
  ordered_json const input = mixtral_json();
  plan p = whole(input);
  for (index_t i = 0; i < 4; ++i) p.layer(i).experts = i % 2 == 0 ? std::vector<index_t>{0, 1, 3} : std::vector<index_t>{1, 2, 3};
  ordered_json const out = checked(input, p);
  CHECK(out["num_local_experts"] == 3);
  CHECK(out["layer_experts_idx"].dump() == "[[0,1,3],[1,2,3],[0,1,3],[1,2,3]]");
  std::vector<std::string> keys = keys_of(input);
  keys.push_back("layer_experts_idx");
  CHECK(keys_of(out) == keys);
  CHECK(out["zeta"] == input["zeta"]);
  CHECK(uniform_experts(planned_config(read_model_config(input, "in"), p)) == 3);
}

TEST_CASE("different layers are lists, dropped MoE parts -1") {
  ordered_json const input = mixtral_json();
  plan p = whole(input);
  p.layer(1).feed_forward = false;
  p.layer(2).experts = {2, 3};
  ordered_json const out = checked(input, p);
  CHECK(out["num_local_experts"].dump() == "[4,-1,2,4]");
  CHECK(out["layer_experts_idx"].dump() == "[[0,1,2,3],[],[2,3],[0,1,2,3]]");
  CHECK(out["num_hidden_layers"] == 4);
  CHECK_FALSE(uniform_experts(planned_config(read_model_config(input, "in"), p)));

  // Again, on what was written: a dropped block takes its entries out of the lists.
  plan second = whole(out);
  second.layer(0).block = false;
  ordered_json const less = checked(out, second);
  CHECK(less["num_hidden_layers"] == 3);
  CHECK(less["num_local_experts"].dump() == "[-1,2,4]");
  CHECK(less["layer_experts_idx"].dump() == "[[],[2,3],[0,1,2,3]]");
  // And back to ordinary when the odd ones go.
  plan third = whole(out);
  third.layer(1).block = third.layer(2).block = false;
  CHECK(checked(out, third)["num_local_experts"] == 4);

  plan all = whole(input);
  for (layer_plan& layer : all.layers) layer.feed_forward = false;
  CHECK(checked(input, all)["num_local_experts"].dump() == "[-1,-1,-1,-1]");
}

TEST_CASE("dropped attention is a list of layers") {
  ordered_json const input = mixtral_json();
  plan p = whole(input);
  p.layer(0).block = false;
  p.layer(1).attention = p.layer(3).attention = false;
  ordered_json const out = checked(input, p);
  CHECK(out["drop_attn_list"].dump() == "[0,2]");
  CHECK(out["num_local_experts"] == 4);
  plan second = whole(out);
  second.layer(1).block = false;
  CHECK(checked(out, second)["drop_attn_list"].dump() == "[0,1]");
}

TEST_CASE("block drop shortens lists that have an entry a layer, and no others") {
  ordered_json input = mixtral_json();
  input["layer_types"] = {"full_attention", "full_attention", "full_attention", "full_attention"};
  input["unrelated"] = {1, 2, 3, 4};
  plan p = whole(input);
  p.layer(0).block = p.layer(2).block = false;
  ordered_json const out = checked(input, p);
  CHECK(out["num_hidden_layers"] == 2);
  CHECK(out["layer_types"].size() == 2);
  CHECK(out["unrelated"] == input["unrelated"]);
  CHECK(out["num_local_experts"] == 4);
  CHECK(keys_of(out) == keys_of(input));
}

TEST_CASE("dense leading layers") {
  ordered_json const input = deepseek_json();
  plan p = whole(input);
  p.layer(1).block = false;
  ordered_json const out = checked(input, p);
  CHECK(out["first_k_dense_replace"] == 1);
  CHECK(out["num_hidden_layers"] == 3);
  CHECK(out["n_routed_experts"] == 4);
  p = whole(input);
  p.layer(3).feed_forward = false;
  CHECK(checked(input, p)["n_routed_experts"].dump() == "[null,null,4,-1]");
  p = whole(input);
  p.layer(0).feed_forward = false;
  CHECK(checked(input, p)["n_routed_experts"].dump() == "[-1,null,4,4]");
}

TEST_CASE("a stride makes removal of layers impossible") {
  ordered_json input = deepseek_json();
  input["moe_layer_freq"] = 2;
  model_config const config = read_model_config(input, "in");
  plan p = keep_everything(config);
  CHECK_NOTHROW(static_cast<void>(output_config(input, config, p, "in")));
  p.layer(3).block = false;
  try {
    static_cast<void>(output_config(input, config, p, "config.json"));
    FAIL("accepted");
  } catch (input_error const& e) {
    CHECK(std::string(e.what()).rfind("config.json: field 'moe_layer_freq'", 0) == 0);
  }
}

TEST_CASE("who loads the result") {
  model_config config = read_model_config(mixtral_json(), "in");
  auto const joined = [](std::vector<std::string> const& notes) {
    std::string text;
    for (std::string const& note : notes) text += note + "\n";
    return text;
  };
  CHECK(joined(loading_notes(config, "", 8, false)).find("same shape as an ordinary mixtral") != std::string::npos);
  CHECK(joined(loading_notes(config, "compressed-tensors", 4, false)).find("no engine but slimtrim") == std::string::npos);
  CHECK(joined(loading_notes(config, "compressed-tensors", 3, false)).find("no engine but slimtrim") != std::string::npos);
  CHECK(joined(loading_notes(config, "compressed-tensors", 3, false)).find("vLLM, SGLang: ") == std::string::npos);
  CHECK(joined(loading_notes(config, "compressed-tensors", 4, true)).find("does not load experts") != std::string::npos);
  CHECK(joined(loading_notes(config, "awq", 4, false)).find("AutoAWQ") != std::string::npos);
  CHECK(joined(loading_notes(config, "gptq", 4, false)).find("GPTQ version 1") != std::string::npos);
  config.layers[0].feed_forward = feed_forward_kind::none;
  CHECK(joined(loading_notes(config, "", 8, false)).find("stock transformers, vLLM and llama.cpp do not") != std::string::npos);
}

}  // namespace pipeline_output_config_test
