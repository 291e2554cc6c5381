// What distinguishes one model family from another, as data: names of tensors, keys of config.json, the router's rule.
//
// Algorithms never ask which family they work on. Adding an architecture is adding a descriptor under families/ and a
// golden test. Names follow the checkpoints of the families' authors as Hugging Face transformers reads them.
#pragma once

#include <slimtrim/core/index.hpp>
#include <slimtrim/router/routing_rule.hpp>

#include <array>
#include <cstddef>
#include <string_view>

namespace slimtrim {
inline namespace v0 {

/// What a module does in the model, whatever its tensor is called.
enum class module_role {
  embedding,
  final_norm,
  head,
  attention_norm,
  query,
  key,
  value,
  output,
  feed_forward_norm,
  router,
  router_bias,    ///< added to the router's scores for the selection only
  gate,           ///< of a routed expert
  up,             ///< of a routed expert
  down,           ///< of a routed expert
  novice,         ///< the constant vector that stands for an expert (MoNE, arXiv 2507.00390)
  shared_gate,    ///< of the shared experts, fused into one wide expert
  shared_up,
  shared_down,
  dense_gate,     ///< of a layer without experts
  dense_up,
  dense_down,
};
inline constexpr std::size_t role_count = static_cast<std::size_t>(module_role::dense_down) + 1;

/// The name of a role in messages.
[[nodiscard]] constexpr std::string_view role_name(module_role role) {
  constexpr std::array<std::string_view, role_count> names{
      "embedding", "final norm", "head",        "attention norm", "query", "key",    "value",
      "output",    "feed-forward norm", "router", "router bias",  "gate",  "up",     "down",
      "novice",    "shared gate", "shared up",  "shared down",    "dense gate", "dense up", "dense down"};
  return names[static_cast<std::size_t>(role)];
}

/// The tensor of one role: `{layer}` and `{expert}` stand for numbers. Empty: the family has no such module.
struct tensor_pattern {
  module_role role = module_role::embedding;
  std::string_view name;
};

/// Keys of config.json; empty where the family has none.
struct config_keys {
  std::string_view experts;                 ///< number of routed experts; a list gives one number per layer
  std::string_view top_k = "num_experts_per_tok";
  std::string_view expert_intermediate;     ///< width of a routed expert
  std::string_view dense_intermediate = "";    ///< width of the feed-forward part of a layer without experts
  std::string_view shared_experts = "";       ///< number of shared experts, each of the width of a routed one
  std::string_view first_dense = "";        ///< number of leading layers without experts
  std::string_view moe_frequency = "";      ///< among the others, only layers divisible by it have experts
  std::string_view renormalise = "";        ///< whether the selected weights are divided by their sum
  std::string_view scale = "";              ///< factor of the routed weights
  std::string_view score = "";              ///< "softmax" or "sigmoid"
  std::string_view group_method = "";       ///< how the selection is limited; only unlimited kinds are supported
};

/// A model family.
struct model_family {
  std::string_view model_type;    ///< `model_type` of config.json
  std::string_view architecture;  ///< the entry of `architectures`
  std::array<tensor_pattern, role_count> tensors{};
  config_keys keys{};
  /// The router where config.json does not say otherwise; `top_k` is always taken from config.json.
  routing_rule routing{};
  /// Defaults of keys that old config.json files leave out.
  double rope_theta = 10000;
  double rms_epsilon = 1e-6;
  /// Keys whose value is a list with one entry per layer, to be shortened when layers are removed.
  std::array<std::string_view, 8> layer_lists{};
  /// Keys whose value counts leading layers, to be lowered when such layers are removed.
  std::array<std::string_view, 2> leading_counts{};
  /// Keys whose value other than 1 makes a layer's kind depend on its number, so that removal of a layer is refused.
  std::array<std::string_view, 2> layer_strides{};
  /// Roles that lose a row or a module when an expert is removed.
  std::array<module_role, 6> sliced_by_expert{module_role::router, module_role::router_bias, module_role::gate, module_role::up, module_role::down, module_role::novice};

  /// The name pattern of a role; empty when the family has no such module.
  [[nodiscard]] constexpr std::string_view pattern(module_role role) const {
    for (tensor_pattern const& each : tensors)
      if (each.role == role && !each.name.empty()) return each.name;
    return {};
  }
};

}  // namespace v0
}  // namespace slimtrim
