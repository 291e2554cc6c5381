// A model's dimensions, layer by layer: layers may differ in what they have and how many experts they have.
#pragma once

#include <slimtrim/core/index.hpp>
#include <slimtrim/io/dtype.hpp>
#include <slimtrim/model/family.hpp>
#include <slimtrim/router/routing_rule.hpp>

#include <cstddef>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What follows the attention in a decoder layer. `none`: nothing, not even its norm.
enum class feed_forward_kind { none, dense, moe };

/// One decoder layer.
struct layer_config {
  bool attention = true;  ///< false: dropped, together with its norm
  feed_forward_kind feed_forward = feed_forward_kind::moe;
  index_t experts = 0;              ///< routed experts in the checkpoint; 0 unless moe
  index_t top_k = 0;                ///< experts a token takes: min(num_experts_per_tok, experts)
  index_t intermediate = 0;         ///< width of a routed expert, or of the dense feed-forward
  index_t shared_intermediate = 0;  ///< width of all shared experts together; 0: none
  /// The indices that the kept experts had in the untrimmed model; empty: 0 .. experts - 1.
  std::vector<index_t> original_experts{};

  /// The index that expert `expert` of the checkpoint had in the untrimmed model.
  [[nodiscard]] index_t original_expert(index_t expert) const {
    return original_experts.empty() ? expert : original_experts[static_cast<std::size_t>(expert)];
  }
};

/// A model's dimensions. `routing` holds the rule without `top_k`; `layer_rule` adds the layer's.
struct model_config {
  model_family const* family = nullptr;
  index_t hidden = 0;
  index_t heads = 0;
  index_t key_value_heads = 0;
  index_t head_dim = 0;
  index_t vocabulary = 0;
  index_t maximum_positions = 0;  ///< 0: not stated
  index_t sliding_window = 0;     ///< 0: none
  double rms_epsilon = 0;
  double rope_theta = 0;
  double rope_factor = 1;  ///< positions are divided by it (linear scaling)
  bool tied_embeddings = false;
  index_t top_k = 0;  ///< num_experts_per_tok, before any layer lowers it
  routing_rule routing{};
  dtype storage = dtype::unknown;  ///< torch_dtype; unknown when not stated
  std::vector<layer_config> layers{};

  [[nodiscard]] layer_config const& layer(index_t i) const { return layers[static_cast<std::size_t>(i)]; }
  [[nodiscard]] index_t layer_count() const { return static_cast<index_t>(layers.size()); }
  /// The routing rule of layer i, which must be a MoE layer.
  [[nodiscard]] routing_rule layer_rule(index_t i) const {
    routing_rule rule = routing;
    rule.top_k = layer(i).top_k;
    return rule;
  }
};

}  // namespace v0
}  // namespace slimtrim
