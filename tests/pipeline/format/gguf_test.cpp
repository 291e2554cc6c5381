// Which GGUF tensor each module becomes, what is said about the model's shape, and what is refused.
#include <slimtrim/pipeline/format/gguf.hpp>

#include <pipeline/support.hpp>
#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <set>
#include <string>
#include <vector>

namespace pipeline_format_gguf_test {

using namespace slimtrim;
using namespace pipeline_tests;

namespace {

model_config deepseek_config() {
  temporary_folder const folder;
  write_synthetic(folder.path() / "m", {.family = "deepseek",
                                        .layers = 3,
                                        .hidden = 64,
                                        .intermediate = 32,
                                        .experts = 6,
                                        .top_k = 3,
                                        .heads = 4,
                                        .vocabulary = 300,
                                        .shared_experts = 2,
                                        .first_dense = 1,
                                        .dense_intermediate = 96});
  return open_model(folder.path() / "m").config;
}

std::uint32_t number(gguf_metadata const& keys, std::string const& key) {
  auto const* const value = find_gguf_value<std::uint32_t>(keys, key);
  REQUIRE_MESSAGE(value != nullptr, key);
  return *value;
}

std::string refusal(model_config const& config) {
  return message_of<input_error>([&] { (void)gguf_architecture(config, "here"); });
}

}  // namespace

TEST_CASE("rows of query and key: halves of a head become neighbours") {
  // A head of 6: the checkpoint's pairs are (0, 3), (1, 4), (2, 5).
  std::vector<index_t> order;
  for (index_t r = 0; r < 12; ++r) order.push_back(gguf_source_row(r, 6));
  CHECK(order == std::vector<index_t>{0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11});
  for (index_t const head_dim : {2, 32, 128}) {
    std::set<index_t> seen;
    for (index_t r = 0; r < 3 * head_dim; ++r) seen.insert(gguf_source_row(r, head_dim));
    CHECK(static_cast<index_t>(seen.size()) == 3 * head_dim);
    CHECK(*seen.rbegin() == 3 * head_dim - 1);
  }
}

TEST_CASE("Mixtral is llama with stacked experts") {
  model_config const& config = bundled().config;
  CHECK(gguf_architecture(config, "here") == "llama");
  auto const modules = gguf_modules(config);
  CHECK(modules.size() == 8 * 10 + 3);
  CHECK(modules.front().name == "token_embd.weight");
  CHECK(modules[modules.size() - 2].name == "output_norm.weight");
  CHECK(modules.back().name == "output.weight");
  for (gguf_module const& each : modules) {
    CAPTURE(each.name);
    if (each.name == "blk.5.ffn_down_exps.weight") {
      CHECK(each.shape == std::vector<index_t>{8, 128, 256});
      REQUIRE(each.sources.size() == 8);
      for (index_t e = 0; e < 8; ++e)
        CHECK(each.sources[static_cast<std::size_t>(e)] == module_id{module_role::down, 5, e});
    } else if (each.name.find("_exps") == std::string::npos) {
      CHECK(each.sources.size() == 1);
    }
    bool const query = each.name.find("attn_q") != std::string::npos,
               key = each.name.find("attn_k") != std::string::npos;
    CHECK(each.rotated_heads == (query ? 4 : (key ? 2 : 0)));
    CHECK(each.vector == (each.name.find("norm") != std::string::npos));
    CHECK(each.router == (each.name.find("gate_inp") != std::string::npos));
  }
  auto const keys = gguf_shape_metadata(config, "llama");
  CHECK(*find_gguf_value<std::string>(keys, "general.architecture") == "llama");
  CHECK(number(keys, "llama.block_count") == 8);
  CHECK(number(keys, "llama.context_length") == 256);
  CHECK(number(keys, "llama.embedding_length") == 128);
  CHECK(number(keys, "llama.feed_forward_length") == 256);
  CHECK(number(keys, "llama.attention.head_count") == 4);
  CHECK(number(keys, "llama.attention.head_count_kv") == 2);
  CHECK(number(keys, "llama.rope.dimension_count") == 32);
  CHECK(number(keys, "llama.expert_count") == 8);
  CHECK(number(keys, "llama.expert_used_count") == 2);
  CHECK(*find_gguf_value<float>(keys, "llama.rope.freq_base") == 10000.0F);
  CHECK(*find_gguf_value<float>(keys, "llama.attention.layer_norm_rms_epsilon") == 1e-5F);
}

TEST_CASE("DeepSeek-MoE has leading dense layers and shared experts") {
  model_config const config = deepseek_config();
  CHECK(gguf_architecture(config, "here") == "deepseek");
  std::set<std::string> names;
  for (gguf_module const& each : gguf_modules(config)) names.insert(each.name);
  for (char const* name :
       {"blk.0.ffn_gate.weight", "blk.0.ffn_up.weight", "blk.0.ffn_down.weight", "blk.1.ffn_gate_inp.weight",
        "blk.2.ffn_gate_exps.weight", "blk.1.ffn_up_shexp.weight", "blk.2.ffn_down_shexp.weight"})
    CHECK_MESSAGE(names.count(name) == 1, name);
  CHECK(names.count("blk.0.ffn_gate_inp.weight") == 0);
  CHECK(names.count("blk.1.ffn_gate.weight") == 0);
  auto const keys = gguf_shape_metadata(config, "deepseek");
  CHECK(number(keys, "deepseek.leading_dense_block_count") == 1);
  CHECK(number(keys, "deepseek.feed_forward_length") == 96);
  CHECK(number(keys, "deepseek.expert_feed_forward_length") == 32);
  CHECK(number(keys, "deepseek.expert_shared_count") == 2);
  CHECK(number(keys, "deepseek.expert_used_count") == 3);
  CHECK(*find_gguf_value<float>(keys, "deepseek.expert_weights_scale") == 1.0F);
}

TEST_CASE("what llama.cpp cannot hold is refused in one line") {
  model_config config = bundled().config;
  config.layers[3].experts = 7;
  CHECK(has(refusal(config), "here: cannot become a GGUF model: layers differ in number or width of experts"));
  config = bundled().config;
  config.layers[3].intermediate = 128;
  CHECK(has(refusal(config), "layers differ"));
  config = bundled().config;
  config.layers[2].feed_forward = feed_forward_kind::none;
  CHECK(has(refusal(config), "layer 2 has no feed-forward part"));
  config = bundled().config;
  config.layers[7].attention = false;
  CHECK(has(refusal(config), "layer 7 has no attention"));
  config = bundled().config;
  config.routing.renormalise = false;
  CHECK(has(refusal(config), "router"));
  config = bundled().config;
  config.sliding_window = 100;
  CHECK(has(refusal(config), "sliding window"));
  config.sliding_window = 256;  // never reached
  CHECK(refusal(config) == "nothing thrown");
  config.maximum_positions = 0;
  CHECK(has(refusal(config), "max_position_embeddings"));
  config = deepseek_config();
  config.routing.renormalise = true;
  CHECK(has(refusal(config), "router"));
  config = deepseek_config();
  std::swap(config.layers[0], config.layers[1]);
  CHECK(has(refusal(config), "not the leading ones"));
  config = deepseek_config();
  for (layer_config& layer : config.layers) layer.shared_intermediate = 0;
  CHECK(has(refusal(config), "no shared experts"));
}

}  // namespace pipeline_format_gguf_test
