// The modules of a model and the names of their tensors, in both directions.
#pragma once

#include <slimtrim/core/index.hpp>
#include <slimtrim/model/family.hpp>
#include <slimtrim/model/model_config.hpp>

#include <charconv>
#include <cstddef>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// One module. `layer` and `expert` count as the checkpoint does (after any earlier trimming); 0 where they do not apply.
struct module_id {
  module_role role = module_role::embedding;
  index_t layer = 0;
  index_t expert = 0;
  friend bool operator==(module_id const&, module_id const&) = default;
};

namespace detail {

inline constexpr std::string_view layer_mark = "{layer}", expert_mark = "{expert}";

[[nodiscard]] inline std::string fill_pattern(std::string_view pattern, index_t layer, index_t expert) {
  std::string name;
  while (!pattern.empty()) {
    if (pattern.substr(0, layer_mark.size()) == layer_mark) {
      name += std::to_string(layer);
      pattern.remove_prefix(layer_mark.size());
    } else if (pattern.substr(0, expert_mark.size()) == expert_mark) {
      name += std::to_string(expert);
      pattern.remove_prefix(expert_mark.size());
    } else {
      name += pattern.front();
      pattern.remove_prefix(1);
    }
  }
  return name;
}

// Takes a number without sign and without leading zeros from the front of `text`.
[[nodiscard]] inline bool take_number(std::string_view& text, index_t& value) {
  auto const [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || text.front() == '-' || (text.front() == '0' && end != text.data() + 1)) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

[[nodiscard]] inline bool match_pattern(std::string_view pattern, std::string_view text, module_id& id) {
  while (!pattern.empty()) {
    if (pattern.substr(0, layer_mark.size()) == layer_mark) {
      if (!take_number(text, id.layer)) return false;
      pattern.remove_prefix(layer_mark.size());
    } else if (pattern.substr(0, expert_mark.size()) == expert_mark) {
      if (!take_number(text, id.expert)) return false;
      pattern.remove_prefix(expert_mark.size());
    } else {
      if (text.empty() || text.front() != pattern.front()) return false;
      text.remove_prefix(1);
      pattern.remove_prefix(1);
    }
  }
  return text.empty();
}

}  // namespace detail

/// The tensor name of a module; empty when the family has no module of that role.
[[nodiscard]] inline std::string module_name(model_family const& family, module_id id) {
  return detail::fill_pattern(family.pattern(id.role), id.layer, id.expert);
}

/// The tensor name without a final ".weight": what packed formats prefix to their tensors.
[[nodiscard]] inline std::string module_stem(model_family const& family, module_id id) {
  constexpr std::string_view ending = ".weight";
  std::string name = module_name(family, id);
  if (name.size() > ending.size() && std::string_view(name).substr(name.size() - ending.size()) == ending)
    name.resize(name.size() - ending.size());
  return name;
}

/// The module whose tensor is called `name`; nothing for names that the family does not know. Layer and expert are as
/// in the name: they may lie beyond the model. The inverse of `module_name`.
[[nodiscard]] inline std::optional<module_id> parse_module(model_family const& family, std::string_view name) {
  for (tensor_pattern const& each : family.tensors) {
    module_id id{each.role, 0, 0};
    if (!each.name.empty() && detail::match_pattern(each.name, name, id)) return id;
  }
  return std::nullopt;
}

/// The module to which a tensor of a packed format belongs: `name` is a module's stem plus "." plus a suffix without
/// dots, such as "weight_packed"; `suffix` is set to it. Also matches plain ".weight" tensors.
[[nodiscard]] inline std::optional<module_id> parse_module_part(model_family const& family, std::string_view name,
                                                                std::string_view& suffix) {
  auto const dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  suffix = name.substr(dot + 1);
  return parse_module(family, std::string(name.substr(0, dot)) + ".weight");
}

/// The extents that a module's tensor must have: [out, in], or [n] for vectors. `id` must be a module of the model.
[[nodiscard]] inline std::vector<index_t> module_shape(model_config const& config, module_id id) {
  index_t const hidden = config.hidden, queries = config.heads * config.head_dim;
  index_t const keys = config.key_value_heads * config.head_dim;
  auto const layer = [&]() -> layer_config const& { return config.layer(id.layer); };
  switch (id.role) {
    case module_role::embedding:
    case module_role::head: return {config.vocabulary, hidden};
    case module_role::final_norm:
    case module_role::attention_norm:
    case module_role::feed_forward_norm:
    case module_role::novice: return {hidden};
    case module_role::query: return {queries, hidden};
    case module_role::key:
    case module_role::value: return {keys, hidden};
    case module_role::output: return {hidden, queries};
    case module_role::router: return {layer().experts, hidden};
    case module_role::router_bias: return {layer().experts};
    case module_role::gate:
    case module_role::up:
    case module_role::dense_gate:
    case module_role::dense_up: return {layer().intermediate, hidden};
    case module_role::down:
    case module_role::dense_down: return {hidden, layer().intermediate};
    case module_role::shared_gate:
    case module_role::shared_up: return {layer().shared_intermediate, hidden};
    case module_role::shared_down: return {hidden, layer().shared_intermediate};
  }
  return {};
}

/// Calls `visit(module_id)` for every module of layer `layer`, in a fixed order. Experts appear as gate, up and down;
/// novices do not appear.
template <class Visit>
void for_each_layer_module(model_config const& config, index_t layer, Visit&& visit) {
  layer_config const& shape = config.layer(layer);
  auto const all = [&](std::initializer_list<module_role> roles, index_t expert) {
    for (module_role const role : roles) visit(module_id{role, layer, expert});
  };
  if (shape.attention)
    all({module_role::attention_norm, module_role::query, module_role::key, module_role::value, module_role::output}, 0);
  if (shape.feed_forward == feed_forward_kind::none) return;
  all({module_role::feed_forward_norm}, 0);
  if (shape.feed_forward == feed_forward_kind::dense) {
    all({module_role::dense_gate, module_role::dense_up, module_role::dense_down}, 0);
    return;
  }
  all({module_role::router}, 0);
  if (config.routing.selection_bias) all({module_role::router_bias}, 0);
  for (index_t e = 0; e < shape.experts; ++e) all({module_role::gate, module_role::up, module_role::down}, e);
  if (shape.shared_intermediate > 0)
    all({module_role::shared_gate, module_role::shared_up, module_role::shared_down}, 0);
}

/// Calls `visit(module_id)` for every module that the model has: embedding, layers in order, final norm, head (unless
/// tied).
template <class Visit>
void for_each_module(model_config const& config, Visit&& visit) {
  visit(module_id{module_role::embedding, 0, 0});
  for (index_t layer = 0; layer < config.layer_count(); ++layer) for_each_layer_module(config, layer, visit);
  visit(module_id{module_role::final_norm, 0, 0});
  if (!config.tied_embeddings) visit(module_id{module_role::head, 0, 0});
}

/// Whether the model has a module with this role, layer and expert. Novices count where their expert exists, and the
/// head of a model with tied embeddings does not count.
[[nodiscard]] inline bool has_module(model_config const& config, module_id id) {
  if (id.role == module_role::embedding || id.role == module_role::final_norm) return true;
  if (id.role == module_role::head) return !config.tied_embeddings;
  if (id.layer < 0 || id.layer >= config.layer_count()) return false;
  layer_config const& layer = config.layer(id.layer);
  bool const is_moe = layer.feed_forward == feed_forward_kind::moe;
  switch (id.role) {
    case module_role::attention_norm:
    case module_role::query:
    case module_role::key:
    case module_role::value:
    case module_role::output: return layer.attention;
    case module_role::feed_forward_norm: return layer.feed_forward != feed_forward_kind::none;
    case module_role::dense_gate:
    case module_role::dense_up:
    case module_role::dense_down: return layer.feed_forward == feed_forward_kind::dense;
    case module_role::router: return is_moe;
    case module_role::router_bias: return is_moe && config.routing.selection_bias;
    case module_role::shared_gate:
    case module_role::shared_up:
    case module_role::shared_down: return is_moe && layer.shared_intermediate > 0;
    default: return is_moe && id.expert >= 0 && id.expert < layer.experts;
  }
}

}  // namespace v0
}  // namespace slimtrim
