// The weights of one decoder layer, of whatever kind each is.
#pragma once

#include <slimtrim/linalg/weight.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/model/module.hpp>
#include <slimtrim/model/weight_source.hpp>
#include <slimtrim/router/routing_rule.hpp>

#include <optional>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Grouped-query attention: query [heads * head_dim, hidden], key and value [key_value_heads * head_dim, hidden],
/// output [hidden, heads * head_dim]; `norm` scales its input.
struct attention_weights {
  std::vector<float> norm;
  weight query, key, value, output;
};

/// down(silu(gate x) * (up x)): gate, up [width, hidden], down [hidden, width].
struct swiglu_weights {
  weight gate, up, down;
  [[nodiscard]] index_t width() const { return gate.rows(); }
};

/// A routed expert: a SwiGLU, or the constant vector that replaced it (`novice` not empty; MoNE, arXiv 2507.00390).
struct expert_weights {
  swiglu_weights swiglu{};
  std::vector<float> novice{};
  [[nodiscard]] bool is_novice() const { return !novice.empty(); }
};

/// Routed experts and what every token takes besides them. Expert counts and widths may differ from layer to layer,
/// widths from expert to expert.
struct moe_weights {
  weight router;                        ///< [experts, hidden]
  std::vector<float> selection_bias{};  ///< [experts], or empty
  routing_rule rule{};
  std::vector<expert_weights> experts{};
  std::optional<swiglu_weights> shared{};
};

/// One decoder layer; absent parts were dropped (the residual stream passes them unchanged).
struct decoder_layer {
  std::optional<attention_weights> attention{};
  std::vector<float> feed_forward_norm{};  ///< empty exactly when neither `dense` nor `moe` is present
  std::optional<swiglu_weights> dense{};
  std::optional<moe_weights> moe{};
};

/// The ends of a model: embedding and head [vocabulary, hidden] (shared when tied) and the last norm.
struct model_ends {
  weight embedding;
  std::vector<float> final_norm;
  weight head;
};

/// The weights of layer `layer` as `source` gives them. Throws `input_error` from the source.
[[nodiscard]] inline decoder_layer load_layer(model_config const& config, weight_source const& source, index_t layer) {
  layer_config const& shape = config.layer(layer);
  auto const matrix = [&](module_role role, index_t expert = 0) { return source.matrix({role, layer, expert}); };
  decoder_layer result;
  if (shape.attention)
    result.attention = attention_weights{source.vector({module_role::attention_norm, layer, 0}),
                                         matrix(module_role::query), matrix(module_role::key),
                                         matrix(module_role::value), matrix(module_role::output)};
  if (shape.feed_forward == feed_forward_kind::none) return result;
  result.feed_forward_norm = source.vector({module_role::feed_forward_norm, layer, 0});
  if (shape.feed_forward == feed_forward_kind::dense) {
    result.dense = swiglu_weights{matrix(module_role::dense_gate), matrix(module_role::dense_up),
                                  matrix(module_role::dense_down)};
    return result;
  }
  moe_weights moe;
  moe.router = matrix(module_role::router);
  moe.rule = config.layer_rule(layer);
  if (moe.rule.selection_bias) moe.selection_bias = source.vector({module_role::router_bias, layer, 0});
  for (index_t e = 0; e < shape.experts; ++e) {
    expert_weights expert;
    module_id const novice{module_role::novice, layer, e};
    if (source.has(novice)) {
      expert.novice = source.vector(novice);
    } else {
      expert.swiglu = swiglu_weights{matrix(module_role::gate, e), matrix(module_role::up, e),
                                     matrix(module_role::down, e)};
    }
    moe.experts.push_back(std::move(expert));
  }
  if (shape.shared_intermediate > 0)
    moe.shared = swiglu_weights{matrix(module_role::shared_gate), matrix(module_role::shared_up),
                                matrix(module_role::shared_down)};
  result.moe = std::move(moe);
  return result;
}

/// Embedding, last norm and head as `source` gives them. Throws `input_error` from the source.
[[nodiscard]] inline model_ends load_ends(model_config const& config, weight_source const& source) {
  model_ends ends;
  ends.embedding = source.matrix({module_role::embedding, 0, 0});
  ends.final_norm = source.vector({module_role::final_norm, 0, 0});
  ends.head = config.tied_embeddings ? ends.embedding : source.matrix({module_role::head, 0, 0});
  return ends;
}

}  // namespace v0
}  // namespace slimtrim
