// config.json of the model that a plan makes, with every key that the plan does not touch kept as it is and in order.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/json.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/model/module.hpp>
#include <slimtrim/pipeline/plan.hpp>

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The number of routed experts that every MoE layer has, when stock loaders can be told so: all MoE layers equal in
/// number and width of experts, and no layer without its feed-forward part.
[[nodiscard]] inline std::optional<index_t> uniform_experts(model_config const& config) {
  std::optional<index_t> count, width;
  for (layer_config const& layer : config.layers) {
    if (layer.feed_forward == feed_forward_kind::none || !layer.attention) return std::nullopt;
    if (layer.feed_forward != feed_forward_kind::moe) continue;
    if (count && (*count != layer.experts || *width != layer.intermediate)) return std::nullopt;
    count = layer.experts;
    width = layer.intermediate;
  }
  return count;
}

namespace detail {

// One entry a layer, in the style of Unified-MoE-Compression: the number of experts; -1: the MoE and its norm are gone;
// null: a dense layer.
[[nodiscard]] inline ordered_json expert_list(model_config const& config) {
  ordered_json list = ordered_json::array();
  for (layer_config const& layer : config.layers) {
    if (layer.feed_forward == feed_forward_kind::none) list.push_back(-1);
    if (layer.feed_forward == feed_forward_kind::dense) list.push_back(nullptr);
    if (layer.feed_forward == feed_forward_kind::moe) list.push_back(layer.experts);
  }
  return list;
}

// The kept experts' numbers in the untrimmed model, in the same style.
[[nodiscard]] inline ordered_json original_expert_list(model_config const& config) {
  ordered_json list = ordered_json::array();
  for (layer_config const& layer : config.layers) {
    ordered_json kept = ordered_json::array();
    for (index_t e = 0; e < layer.experts; ++e) kept.push_back(layer.original_expert(e));
    list.push_back(layer.feed_forward == feed_forward_kind::dense ? ordered_json(nullptr) : std::move(kept));
  }
  return list;
}

// The width of routed experts where neurons went: one number, or a list where layers differ.
inline void set_widths(ordered_json& out, model_config const& before, model_config const& planned) {
  index_t was = 0;
  for (layer_config const& layer : before.layers)
    if (layer.feed_forward == feed_forward_kind::moe) was = layer.intermediate;
  bool changed = false, equal = true;
  std::optional<index_t> width;
  ordered_json list = ordered_json::array();
  for (layer_config const& layer : planned.layers) {
    bool const moe = layer.feed_forward == feed_forward_kind::moe;
    list.push_back(moe ? ordered_json(layer.intermediate) : ordered_json(nullptr));
    if (!moe) continue;
    changed = changed || layer.intermediate != was;
    equal = equal && (!width || *width == layer.intermediate);
    width = layer.intermediate;
  }
  std::string const key(planned.family->keys.expert_intermediate);
  if (!changed || key.empty()) return;
  if (equal) {
    out[key] = *width;
  } else {
    out[key] = std::move(list);
  }
}

}  // namespace detail

/// config.json for `planned_config(config, p)`. `input`: the input's config.json; `place`: where it is, for messages.
/// Throws `input_error` naming the key when removing layers would change what another layer is.
[[nodiscard]] inline ordered_json output_config(ordered_json const& input, model_config const& config, plan const& p,
                                                std::string const& place) {
  ordered_json out = input;
  model_config const planned = planned_config(config, p);
  bool const renumbered = planned.layer_count() != config.layer_count();
  model_family const& family = *config.family;
  if (renumbered) {
    for (std::string_view const key : family.layer_strides)
      if (!key.empty() && out.contains(key) && out[std::string(key)].is_number_integer() &&
          out[std::string(key)] != 1)
        throw input_error(place, "field '" + std::string(key) +
                                     "': expected 1 when whole layers are dropped, found " + out[std::string(key)].dump());
    out["num_hidden_layers"] = planned.layer_count();
    for (std::string_view const name : family.layer_lists) {
      std::string const key(name);
      if (key.empty() || !out.contains(key) || !out[key].is_array() ||
          static_cast<index_t>(out[key].size()) != config.layer_count())
        continue;
      ordered_json kept = ordered_json::array();
      for (index_t i = 0; i < config.layer_count(); ++i)
        if (p.layer(i).block) kept.push_back(out[key][static_cast<std::size_t>(i)]);
      out[key] = std::move(kept);
    }
    for (std::string_view const name : family.leading_counts) {
      std::string const key(name);
      if (key.empty() || !out.contains(key) || !out[key].is_number_integer()) continue;
      index_t const leading = std::min<index_t>(out[key].get<index_t>(), config.layer_count());
      index_t surviving = 0;
      for (index_t i = 0; i < leading; ++i) surviving += p.layer(i).block ? 1 : 0;
      out[key] = surviving;
    }
  }
  std::string const experts(family.keys.experts);
  bool any_drop = false, any_originals = false, any_attention_gone = false;
  std::optional<index_t> count;
  bool equal = true;
  for (layer_config const& layer : planned.layers) {
    any_drop = any_drop || layer.feed_forward == feed_forward_kind::none;
    any_originals = any_originals || !layer.original_experts.empty();
    any_attention_gone = any_attention_gone || !layer.attention;
    if (layer.feed_forward != feed_forward_kind::moe) continue;
    equal = equal && (!count || *count == layer.experts);
    count = layer.experts;
  }
  if (count && equal && !any_drop) {
    out[experts] = *count;
  } else if (count || any_drop) {
    out[experts] = detail::expert_list(planned);
  }
  detail::set_widths(out, config, planned);
  if (any_originals) {
    out["layer_experts_idx"] = detail::original_expert_list(planned);
  } else {
    out.erase("layer_experts_idx");
  }
  out.erase("drop_attn_list");
  out.erase("drop_mlp_list");
  if (any_attention_gone) {
    ordered_json list = ordered_json::array();
    for (index_t i = 0; i < planned.layer_count(); ++i)
      if (!planned.layer(i).attention) list.push_back(i);
    out["drop_attn_list"] = std::move(list);
  }
  return out;
}

/// `quantization` with every name of a module in its lists ("ignore", "targets", "modules_to_not_convert") as the plan renumbers
/// it; names of modules that go are left out, patterns and everything else stay as they are.
[[nodiscard]] inline ordered_json renamed_modules(ordered_json quantization, model_family const& family, plan const& p) {
  std::string layer_prefix(family.pattern(module_role::attention_norm));
  layer_prefix.resize(std::min(layer_prefix.find("{layer}"), layer_prefix.size()));
  auto const renamed = [&](std::string const& name) -> std::optional<std::string> {
    if (auto const id = parse_module(family, name + ".weight"); id && (is_attention_role(id->role) || is_feed_forward_role(id->role))) {
      if (id->layer >= static_cast<index_t>(p.layers.size())) return name;
      auto const target = planned_module(p, *id);
      if (!target) return std::nullopt;
      return module_stem(family, *target);
    }
    // A part of a layer that holds several modules.
    if (layer_prefix.empty() || name.compare(0, layer_prefix.size(), layer_prefix) != 0) return name;
    std::string_view rest(name);
    rest.remove_prefix(layer_prefix.size());
    index_t layer = 0;
    if (!detail::take_number(rest, layer) || layer >= static_cast<index_t>(p.layers.size())) return name;
    auto const target = planned_layer(p, layer);
    if (!target) return std::nullopt;
    return layer_prefix + std::to_string(*target) + std::string(rest);
  };
  std::function<void(ordered_json&)> const walk = [&](ordered_json& at) {
    if (at.is_object())
      for (auto& each : at) walk(each);
    if (!at.is_array()) return;
    ordered_json kept = ordered_json::array();
    for (ordered_json& each : at) {
      if (!each.is_string()) {
        walk(each);
        kept.push_back(std::move(each));
      } else if (auto name = renamed(each.get<std::string>())) {
        kept.push_back(std::move(*name));
      }
    }
    at = std::move(kept);
  };
  walk(quantization);
  return quantization;
}

/// Whether the plan makes novices in a layer that stays.
[[nodiscard]] inline bool makes_novices(plan const& p) {
  return std::any_of(p.layers.begin(), p.layers.end(),
                     [](layer_plan const& layer) { return layer.block && layer.feed_forward && !layer.novices.empty(); });
}

/// Which engines load a model of this shape, one sentence each; shown before anything is written.
/// format: of packed weights, or empty; fewest_bits, zero_points: of what is quantised.
[[nodiscard]] inline std::vector<std::string> loading_notes(model_config const& planned, std::string_view format,
                                                            int fewest_bits, bool zero_points, bool novices = false) {
  std::vector<std::string> notes;
  if (novices) {
    notes.push_back("some experts are constant vectors (novices): slimtrim loads them; transformers, vLLM, SGLang and llama.cpp "
                    "do not");
  } else if (uniform_experts(planned)) {
    notes.push_back("same shape as an ordinary " + std::string(planned.family->model_type) +
                    " model: transformers, vLLM, SGLang and llama.cpp's converter accept the layout");
  } else {
    notes.push_back(
        "layers differ from each other (experts or dropped sub-layers are written as per-layer lists): slimtrim loads it, "
        "and so does modelling code that reads such lists; stock transformers, vLLM and llama.cpp do not");
  }
  if (format == "compressed-tensors") {
    if (fewest_bits < 4)
      notes.push_back("weights as compressed-tensors pack-quantized, of 2 or 3 bits: no engine but slimtrim loads them");
    else if (zero_points)
      notes.push_back("weights as compressed-tensors pack-quantized with zero points: transformers does not load experts with them "
                      "(symmetric ones, as in awq:4g128s, it does); --format awq is read more widely");
    else
      notes.push_back("weights as compressed-tensors pack-quantized: transformers, vLLM, SGLang");
  }
  if (format == "fp8") notes.push_back("weights as 8-bit floats, copied as they were: whoever loads the input's");
  if (format == "awq") notes.push_back("weights as AutoAWQ GEMM: transformers, vLLM");
  if (format == "gptq")
    notes.push_back("weights as GPTQ version 1: transformers, vLLM, GPTQModel (its version 7 wants Mixtral's experts renamed: docs/formats.md)");
  return notes;
}

}  // namespace v0
}  // namespace slimtrim
