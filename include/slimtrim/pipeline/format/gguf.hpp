// A model as llama.cpp knows it: which GGUF tensor each module becomes, and the metadata that describes the shape.
//
// Two architectures: Mixtral is "llama" with stacked experts, DeepSeek-MoE (version 1) is "deepseek". Both engines'
// rotary embeddings turn neighbouring elements, where the checkpoints turn the halves of a head: the rows of query and
// key are reordered here (`gguf_source_row`), which changes no attention score.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/gguf_value.hpp>
#include <slimtrim/io/printable.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/model/module.hpp>
#include <slimtrim/pipeline/output_config.hpp>  // uniform_experts

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// One tensor of the file. A stack of experts has one source an expert; everything else has one.
struct gguf_module {
  std::string name;
  std::vector<module_id> sources;
  std::vector<index_t> shape;  ///< [out, in], [experts, out, in] or [n]
  bool vector = false;         ///< a norm: float32 whatever the rest is
  bool router = false;         ///< float32 too
  index_t rotated_heads = 0;   ///< query and key: heads whose rows are reordered
};

namespace detail {

struct gguf_role {
  module_role role;
  std::string_view name;
};
inline constexpr std::array<gguf_role, 19> gguf_roles{{
    {module_role::embedding, "token_embd.weight"},
    {module_role::final_norm, "output_norm.weight"},
    {module_role::head, "output.weight"},
    {module_role::attention_norm, "attn_norm.weight"},
    {module_role::query, "attn_q.weight"},
    {module_role::key, "attn_k.weight"},
    {module_role::value, "attn_v.weight"},
    {module_role::output, "attn_output.weight"},
    {module_role::feed_forward_norm, "ffn_norm.weight"},
    {module_role::router, "ffn_gate_inp.weight"},
    {module_role::gate, "ffn_gate_exps.weight"},
    {module_role::up, "ffn_up_exps.weight"},
    {module_role::down, "ffn_down_exps.weight"},
    {module_role::shared_gate, "ffn_gate_shexp.weight"},
    {module_role::shared_up, "ffn_up_shexp.weight"},
    {module_role::shared_down, "ffn_down_shexp.weight"},
    {module_role::dense_gate, "ffn_gate.weight"},
    {module_role::dense_up, "ffn_up.weight"},
    {module_role::dense_down, "ffn_down.weight"},
}};

[[nodiscard]] inline std::string gguf_name(module_id id) {
  std::string_view name;
  for (gguf_role const& each : gguf_roles)
    if (each.role == id.role) name = each.name;
  bool const in_layer =
      id.role != module_role::embedding && id.role != module_role::final_norm && id.role != module_role::head;
  return (in_layer ? "blk." + std::to_string(id.layer) + "." : std::string()) + std::string(name);
}

[[noreturn]] inline void refuse_gguf(std::string_view place, std::string const& what) {
  throw input_error(place, "cannot become a GGUF model: " + what);
}

}  // namespace detail

/// The row of query or key weights in the checkpoint that becomes row `row`: within a head, row 2 i + j was row
/// j head_dim / 2 + i.
[[nodiscard]] constexpr index_t gguf_source_row(index_t row, index_t head_dim) {
  index_t const head = row / head_dim, within = row % head_dim;
  return head * head_dim + within % 2 * (head_dim / 2) + within / 2;
}

/// llama.cpp's name of the architecture. Throws `input_error` naming what its engines cannot hold: another family,
/// layers that differ from each other (expert counts, dropped parts), novices, a router of another kind, a sliding
/// window. `place` names the checkpoint.
[[nodiscard]] inline std::string_view gguf_architecture(model_config const& config, std::string_view place) {
  std::string_view const family = config.family->model_type;
  bool const mixtral = family == "mixtral", deepseek = family == "deepseek";
  if (!mixtral && !deepseek)
    detail::refuse_gguf(place, "expected family mixtral or deepseek, found " + std::string(family));
  for (index_t i = 0; i < config.layer_count(); ++i) {
    layer_config const& layer = config.layer(i);
    std::string const which = "layer " + std::to_string(i);
    if (!layer.attention)
      detail::refuse_gguf(place, which + " has no attention, and llama.cpp wants one in every layer");
    if (layer.feed_forward == feed_forward_kind::none)
      detail::refuse_gguf(
          place,
          which + " has no feed-forward part, and llama.cpp wants one in every layer (drop whole blocks instead)");
  }
  if (!uniform_experts(config))
    detail::refuse_gguf(
        place,
        "layers differ in number or width of experts, and llama.cpp has one number for all (trim with --uniform)");
  routing_rule const& rule = config.routing;
  if (rule.score != score_function::softmax || rule.select_before_score || rule.selection_bias ||
      rule.renormalise != mixtral)
    detail::refuse_gguf(place, "its router is not the one that llama.cpp has for " + std::string(family));
  if (config.sliding_window != 0 && config.sliding_window < config.maximum_positions)
    detail::refuse_gguf(
        place, "llama.cpp has no sliding window for this architecture, found " + std::to_string(config.sliding_window));
  if (config.maximum_positions == 0)
    detail::refuse_gguf(place, "config.json: max_position_embeddings: expected, not found");
  if (config.head_dim % 2 != 0)
    detail::refuse_gguf(place, "expected heads of an even width, found " + std::to_string(config.head_dim));
  if (deepseek) {
    bool sparse_seen = false;
    for (layer_config const& layer : config.layers) {
      bool const moe = layer.feed_forward == feed_forward_kind::moe;
      if (sparse_seen && !moe) detail::refuse_gguf(place, "layers without experts are not the leading ones");
      if (moe && layer.shared_intermediate % layer.intermediate != 0)
        detail::refuse_gguf(place, "shared experts are no multiple of a routed one in width");
      if (moe && layer.shared_intermediate == 0)
        detail::refuse_gguf(place, "there are no shared experts, and llama.cpp wants some");
      sparse_seen = sparse_seen || moe;
    }
    if (config.heads * config.head_dim != config.hidden)
      detail::refuse_gguf(place, "expected heads times their width to be the hidden width");
    return "deepseek";
  }
  return "llama";
}

/// The file's tensors in the order of the model. `config` has passed `gguf_architecture`.
[[nodiscard]] inline std::vector<gguf_module> gguf_modules(model_config const& config) {
  std::vector<gguf_module> modules;
  for_each_module(config, [&](module_id id) {
    bool const of_expert = id.role == module_role::gate || id.role == module_role::up || id.role == module_role::down;
    std::string name = detail::gguf_name(id);
    if (of_expert && id.expert > 0) {
      // Its stack is among the last three.
      auto at = modules.rbegin();
      while (at->name != name) ++at;
      at->sources.push_back(id);
      return;
    }
    gguf_module made;
    made.name = std::move(name);
    made.sources = {id};
    made.shape = module_shape(config, id);
    made.vector = made.shape.size() == 1;
    made.router = id.role == module_role::router;
    if (id.role == module_role::query) made.rotated_heads = config.heads;
    if (id.role == module_role::key) made.rotated_heads = config.key_value_heads;
    if (of_expert) made.shape.insert(made.shape.begin(), config.layer(id.layer).experts);
    modules.push_back(std::move(made));
  });
  return modules;
}

/// The keys that say what the model is, but for its tokenizer and the type of its weights.
[[nodiscard]] inline gguf_metadata gguf_shape_metadata(model_config const& config, std::string_view architecture) {
  std::string const prefix = std::string(architecture) + ".";
  gguf_metadata keys;
  auto const count = [&](std::string_view key, index_t value) {
    keys.emplace_back(prefix + std::string(key), static_cast<std::uint32_t>(value));
  };
  auto const real = [&](std::string_view key, double value) {
    keys.emplace_back(prefix + std::string(key), static_cast<float>(value));
  };
  layer_config const* moe = nullptr;
  index_t leading_dense = 0, dense_width = 0;
  for (layer_config const& layer : config.layers) {
    if (layer.feed_forward == feed_forward_kind::moe) moe = &layer;
    if (layer.feed_forward != feed_forward_kind::dense) continue;
    ++leading_dense;
    dense_width = layer.intermediate;
  }
  keys.emplace_back("general.architecture", std::string(architecture));
  keys.emplace_back("general.type", std::string("model"));
  keys.emplace_back("general.name", std::string(config.family->model_type));
  count("block_count", config.layer_count());
  count("context_length", config.maximum_positions);
  count("embedding_length", config.hidden);
  count("vocab_size", config.vocabulary);
  count("attention.head_count", config.heads);
  count("attention.head_count_kv", config.key_value_heads);
  count("attention.key_length", config.head_dim);
  count("attention.value_length", config.head_dim);
  real("attention.layer_norm_rms_epsilon", config.rms_epsilon);
  count("rope.dimension_count", config.head_dim);
  real("rope.freq_base", config.rope_theta);
  keys.emplace_back(prefix + "rope.scaling.type", std::string(config.rope_factor != 1 ? "linear" : "none"));
  if (config.rope_factor != 1) real("rope.scaling.factor", config.rope_factor);
  if (moe != nullptr) {
    count("feed_forward_length", leading_dense > 0 ? dense_width : moe->intermediate);
    count("expert_count", moe->experts);
    count("expert_used_count", moe->top_k);
    if (architecture == "deepseek") {
      count("leading_dense_block_count", leading_dense);
      count("expert_feed_forward_length", moe->intermediate);
      count("expert_shared_count", moe->shared_intermediate / moe->intermediate);
      real("expert_weights_scale", config.routing.scale);
    }
  }
  return keys;
}

}  // namespace v0
}  // namespace slimtrim
