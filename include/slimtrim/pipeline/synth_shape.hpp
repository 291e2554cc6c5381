// The shape of a synthetic model: checked options, its dimensions and its config.json.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/io/dtype.hpp>
#include <slimtrim/io/json.hpp>
#include <slimtrim/model/known_families.hpp>
#include <slimtrim/model/model_config.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Dimensions of a synthetic model. A 0 marked "default" is replaced by `synth_config`.
struct synth_shape {
  std::string family = "mixtral";
  index_t layers = 4;
  index_t hidden = 256;
  index_t intermediate = 512;  ///< width of one routed expert
  index_t experts = 8;
  index_t top_k = 2;
  index_t heads = 8;
  index_t key_value_heads = 0;     ///< default: `heads`
  index_t head_dim = 0;            ///< default: hidden / heads
  index_t vocabulary = 1024;
  index_t positions = 4096;        ///< max_position_embeddings
  index_t shared_experts = 2;      ///< families with shared experts only
  index_t first_dense = 1;         ///< leading layers without experts, families that have them only
  index_t dense_intermediate = 0;  ///< default: intermediate * (top_k + shared_experts)
  bool tied_embeddings = false;
};

namespace detail {

inline void require_option(bool condition, char const* option, std::string const& expected, index_t found) {
  if (!condition) throw usage_error(std::string(option) + ": expected " + expected + ", found " + std::to_string(found));
}

inline void require_range(index_t value, char const* option, index_t least, index_t most) {
  require_option(value >= least && value <= most, option,
                 std::to_string(least) + " to " + std::to_string(most), value);
}

}  // namespace detail

/// The model's dimensions. Throws `usage_error` that names the option of `slimtrim synth` which makes no sense.
[[nodiscard]] inline model_config synth_config(synth_shape const& shape) {
  auto const known = std::find_if(known_families.begin(), known_families.end(),
                                  [&](model_family const* each) { return each->model_type == shape.family; });
  if (known == known_families.end()) {
    std::string names;
    for (model_family const* const each : known_families)
      names += (names.empty() ? "" : ", ") + std::string(each->model_type);
    throw usage_error("--family: expected one of " + names + ", found '" + shape.family + "'");
  }
  model_family const& family = **known;
  constexpr index_t most = index_t{1} << 24;
  detail::require_range(shape.layers, "--layers", 1, 10000);
  detail::require_range(shape.hidden, "--hidden", 1, most);
  detail::require_range(shape.intermediate, "--intermediate", 1, most);
  detail::require_range(shape.experts, "--experts", 1, 65536);
  detail::require_range(shape.top_k, "--top-k", 1, shape.experts);
  detail::require_range(shape.heads, "--heads", 1, 65536);
  detail::require_range(shape.vocabulary, "--vocab", 2, index_t{1} << 22);
  detail::require_range(shape.positions, "--positions", 2, index_t{1} << 30);

  model_config config;
  config.family = &family;
  config.hidden = shape.hidden;
  config.heads = shape.heads;
  config.key_value_heads = shape.key_value_heads == 0 ? shape.heads : shape.key_value_heads;
  detail::require_option(config.key_value_heads > 0 && shape.heads % config.key_value_heads == 0, "--kv-heads",
                         "a divisor of --heads " + std::to_string(shape.heads), shape.key_value_heads);
  if (shape.head_dim == 0)
    detail::require_option(shape.hidden % shape.heads == 0, "--heads",
                           "a divisor of --hidden " + std::to_string(shape.hidden) + " (or --head-dim)", shape.heads);
  config.head_dim = shape.head_dim == 0 ? shape.hidden / shape.heads : shape.head_dim;
  detail::require_option(config.head_dim > 0 && config.head_dim % 2 == 0 && config.head_dim <= 65536, "--head-dim",
                         "an even number (rotary embeddings turn pairs)", config.head_dim);
  config.vocabulary = shape.vocabulary;
  config.maximum_positions = shape.positions;
  config.rms_epsilon = family.rms_epsilon;
  config.rope_theta = family.rope_theta;
  config.tied_embeddings = shape.tied_embeddings;
  config.top_k = shape.top_k;
  config.routing = family.routing;
  config.storage = dtype::bfloat16;

  bool const has_shared = !family.keys.shared_experts.empty();
  bool const has_dense = !family.keys.first_dense.empty();
  index_t const shared = has_shared ? shape.shared_experts : 0;
  index_t const dense_layers = has_dense ? shape.first_dense : 0;
  detail::require_range(shared, "--shared-experts", 0, 1024);
  detail::require_range(dense_layers, "--first-dense", 0, shape.layers);
  layer_config moe;
  moe.feed_forward = feed_forward_kind::moe;
  moe.experts = shape.experts;
  moe.top_k = shape.top_k;
  moe.intermediate = shape.intermediate;
  moe.shared_intermediate = shared * shape.intermediate;
  layer_config dense;
  dense.feed_forward = feed_forward_kind::dense;
  dense.intermediate =
      shape.dense_intermediate == 0 ? shape.intermediate * (shape.top_k + shared) : shape.dense_intermediate;
  detail::require_range(dense.intermediate, "--dense-intermediate", 1, index_t{1} << 40);
  for (index_t i = 0; i < shape.layers; ++i) config.layers.push_back(i < dense_layers ? dense : moe);
  return config;
}

/// The config.json of a model that `synth_config` made.
[[nodiscard]] inline ordered_json synth_config_json(model_config const& config, synth_shape const& shape) {
  model_family const& family = *config.family;
  config_keys const& keys = family.keys;
  ordered_json json;
  json["architectures"] = {std::string(family.architecture)};
  json["model_type"] = std::string(family.model_type);
  json["vocab_size"] = config.vocabulary;
  json["hidden_size"] = config.hidden;
  auto const put = [&json](std::string_view key, auto const& value) {
    if (!key.empty()) json[std::string(key)] = value;
  };
  // The dense width first, because some families call both widths by one key.
  if (!keys.dense_intermediate.empty()) {
    index_t dense = shape.dense_intermediate == 0
                        ? shape.intermediate * (shape.top_k + (keys.shared_experts.empty() ? 0 : shape.shared_experts))
                        : shape.dense_intermediate;
    put(keys.dense_intermediate, dense);
  }
  put(keys.expert_intermediate, shape.intermediate);
  json["num_hidden_layers"] = config.layer_count();
  json["num_attention_heads"] = config.heads;
  json["num_key_value_heads"] = config.key_value_heads;
  if (config.head_dim * config.heads != config.hidden) json["head_dim"] = config.head_dim;
  put(keys.experts, shape.experts);
  put(keys.top_k, shape.top_k);
  put(keys.shared_experts, shape.shared_experts);
  put(keys.first_dense, shape.first_dense);
  put(keys.moe_frequency, 1);
  put(keys.renormalise, config.routing.renormalise);
  put(keys.score, config.routing.score == score_function::sigmoid ? "sigmoid" : "softmax");
  json["hidden_act"] = "silu";
  json["rms_norm_eps"] = config.rms_epsilon;
  json["rope_theta"] = config.rope_theta;
  json["max_position_embeddings"] = config.maximum_positions;
  json["tie_word_embeddings"] = config.tied_embeddings;
  json["bos_token_id"] = nullptr;
  json["eos_token_id"] = nullptr;
  json["torch_dtype"] = "bfloat16";
  return json;
}

}  // namespace v0
}  // namespace slimtrim
