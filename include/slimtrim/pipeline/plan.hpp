// A plan: what happens to every module of one model, decided and not yet done.
//
// Layers and experts are numbered as in the checkpoint that the plan was made for; what they become is derived here and
// nowhere else.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/json.hpp>
#include <slimtrim/io/printable.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/model/module.hpp>
#include <slimtrim/pipeline/check_recipe.hpp>
#include <slimtrim/pipeline/layer_plan.hpp>
#include <slimtrim/pipeline/recipe.hpp>
#include <slimtrim/pipeline/targets.hpp>

#include <algorithm>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The whole of it. `evidence` has one object per trim step: criterion, scores, what went.
struct plan {
  std::string recipe{};
  std::string fingerprint{};  ///< of the checkpoint that the plan is for; empty: any with the same shape
  std::vector<layer_plan> layers{};
  std::vector<step> slimming{};  ///< the recipe's slim and recover steps, in order
  ordered_json evidence = ordered_json::array();

  [[nodiscard]] layer_plan const& layer(index_t i) const { return layers[static_cast<std::size_t>(i)]; }
  [[nodiscard]] layer_plan& layer(index_t i) { return layers[static_cast<std::size_t>(i)]; }
};

/// The plan that keeps everything.
[[nodiscard]] inline plan keep_everything(model_config const& config) {
  plan result;
  for (layer_config const& layer : config.layers) {
    layer_plan kept;
    kept.attention = layer.attention;
    kept.feed_forward = layer.feed_forward != feed_forward_kind::none;
    kept.experts.resize(static_cast<std::size_t>(layer.experts));
    std::iota(kept.experts.begin(), kept.experts.end(), index_t{0});
    result.layers.push_back(std::move(kept));
  }
  return result;
}

/// Throws `input_error` when a slim step names layers that the model does not have, matches none of its matrices, works on tokens
/// that no layer's inputs tell (head, embedding, router), or comes to a matrix that an earlier one has packed.
inline void check_slimming(plan const& p, model_config const& config, std::string const& place) {
  for_each_module(config, [&](module_id id) {
    std::vector<step const*> steps;
    for (step const& s : p.slimming)
      if (s.method != method::recover && is_target(s, *config.family, id)) steps.push_back(&s);
    std::string const conflict = slimming_conflict(steps, target_class(id.role), module_name(*config.family, id));
    if (!conflict.empty()) throw input_error(place, conflict);
  });
  for (step const& s : p.slimming) {
    std::string const which = "step '" + short_form(s) + "': ";
    for (index_t const layer : s.layers)
      if (layer < 0 || layer >= config.layer_count())
        throw input_error(place, which + "layers: expected 0 to " + std::to_string(config.layer_count() - 1) + ", found " +
                                     std::to_string(layer));
    bool any = false;
    for_each_module(config, [&](module_id id) { any = any || is_target(s, *config.family, id); });
    if (any) continue;
    std::string targets;
    for (std::string const& target : s.targets) targets += (targets.empty() ? "" : ", ") + printable(target);
    throw input_error(place, which + "targets: expected some matrix of the model among them, found " +
                                 (targets.empty() ? std::string("none in its layers") : targets));
  }
}

/// Throws `input_error` that names the field when the plan does not fit the model or leaves nothing of it.
/// `place` is where the plan came from.
inline void check_plan(plan const& p, model_config const& config, std::string const& place) {
  auto const refuse = [&](std::string const& what) { throw input_error(place, what); };
  if (static_cast<index_t>(p.layers.size()) != config.layer_count())
    refuse("field 'layers': expected " + std::to_string(config.layer_count()) + " entries, found " +
           std::to_string(p.layers.size()));
  bool anything = false;
  for (index_t i = 0; i < config.layer_count(); ++i) {
    layer_plan const& layer = p.layer(i);
    layer_config const& shape = config.layer(i);
    std::string const at = "layers[" + std::to_string(i) + "]";
    if (!layer.block) continue;
    anything = anything || layer.attention || layer.feed_forward;
    if (layer.attention && !shape.attention) refuse("field '" + at + ".attention': expected false, the model has none there");
    if (layer.feed_forward && shape.feed_forward == feed_forward_kind::none)
      refuse("field '" + at + ".feed_forward': expected false, the model has none there");
    if (!layer.feed_forward) continue;
    check_layer_plan(layer, shape, config.hidden, place, at);
    if (shape.feed_forward == feed_forward_kind::moe && static_cast<index_t>(layer.experts.size()) < shape.top_k)
      refuse("field '" + at + ".experts': expected at least " + std::to_string(shape.top_k) +
             " (the experts that a token takes), found " + std::to_string(layer.experts.size()));
  }
  if (!anything) refuse("field 'layers': expected at least one layer that stays");
  check_slimming(p, config, place);
}

/// The dimensions of the model that the plan makes of `config`.
[[nodiscard]] inline model_config planned_config(model_config const& config, plan const& p) {
  model_config result = config;
  result.layers.clear();
  for (index_t i = 0; i < config.layer_count(); ++i) {
    layer_plan const& kept = p.layer(i);
    if (!kept.block) continue;
    layer_config layer = config.layer(i);
    layer.attention = kept.attention;
    if (!kept.feed_forward) {
      layer.feed_forward = feed_forward_kind::none;
      layer.experts = layer.top_k = layer.intermediate = layer.shared_intermediate = 0;
      layer.original_experts.clear();
    } else if (layer.feed_forward == feed_forward_kind::moe) {
      std::vector<index_t> originals;
      for (index_t const expert : kept.experts) originals.push_back(layer.original_expert(expert));
      layer.experts = static_cast<index_t>(originals.size());
      layer.top_k = std::min(layer.top_k, layer.experts);
      bool const untouched = config.layer(i).original_experts.empty() && layer.experts == config.layer(i).experts;
      layer.original_experts = untouched ? std::vector<index_t>{} : std::move(originals);
      if (!kept.neurons.empty()) layer.intermediate = static_cast<index_t>(kept.neurons.begin()->second.size());
    }
    result.layers.push_back(std::move(layer));
  }
  return result;
}

/// The layer's index after the plan; nothing when its block goes.
[[nodiscard]] inline std::optional<index_t> planned_layer(plan const& p, index_t layer) {
  if (layer < 0 || layer >= static_cast<index_t>(p.layers.size()) || !p.layer(layer).block) return std::nullopt;
  index_t before = 0;
  for (index_t i = 0; i < layer; ++i) before += p.layer(i).block ? 1 : 0;
  return before;
}

/// Whether a role belongs to the decoder layers, and to which part of them.
[[nodiscard]] constexpr bool is_attention_role(module_role of) {
  return of >= module_role::attention_norm && of <= module_role::output;
}
[[nodiscard]] constexpr bool is_feed_forward_role(module_role of) { return of >= module_role::feed_forward_norm; }
[[nodiscard]] constexpr bool is_expert_role(module_role of) {
  return of >= module_role::gate && of <= module_role::novice;
}
/// Whether a role is one of a routed expert's three matrices.
[[nodiscard]] constexpr bool is_expert_matrix_role(module_role of) {
  return of >= module_role::gate && of <= module_role::down;
}

/// What the module is called after the plan; nothing when it goes.
[[nodiscard]] inline std::optional<module_id> planned_module(plan const& p, module_id id) {
  if (!is_attention_role(id.role) && !is_feed_forward_role(id.role)) return id;
  auto const layer = planned_layer(p, id.layer);
  if (!layer) return std::nullopt;
  layer_plan const& kept = p.layer(id.layer);
  if (is_attention_role(id.role) ? !kept.attention : !kept.feed_forward) return std::nullopt;
  module_id result = id;
  result.layer = *layer;
  if (is_expert_role(id.role)) {
    auto const at = std::lower_bound(kept.experts.begin(), kept.experts.end(), id.expert);
    if (at == kept.experts.end() || *at != id.expert) return std::nullopt;
    if (id.role != module_role::novice && kept.find_novice(id.expert) != nullptr) return std::nullopt;
    result.expert = at - kept.experts.begin();
  }
  return result;
}

}  // namespace v0
}  // namespace slimtrim
