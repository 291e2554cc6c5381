// What a checkpoint consists of: parameters and bytes by component and by layer, and what one token uses of them.
//
// Read from names and shapes alone; no weight is touched. Packed weights count their parameters as the matrix they
// stand for, and their bytes as stored.
#pragma once

#include <slimtrim/core/index.hpp>
#include <slimtrim/io/checkpoint.hpp>
#include <slimtrim/io/json.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/model/module.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Parts of a model that are counted by themselves. `other`: tensors that the family does not know.
enum class component { embedding, attention, router, experts, shared_experts, dense, norms, head, other };
inline constexpr std::array<std::string_view, 9> component_names{
    "embedding", "attention", "router", "experts", "shared_experts", "dense", "norms", "head", "other"};

[[nodiscard]] constexpr component component_of(module_role of) {
  switch (of) {
    case module_role::embedding: return component::embedding;
    case module_role::head: return component::head;
    case module_role::query:
    case module_role::key:
    case module_role::value:
    case module_role::output: return component::attention;
    case module_role::router:
    case module_role::router_bias: return component::router;
    case module_role::gate:
    case module_role::up:
    case module_role::down:
    case module_role::novice: return component::experts;
    case module_role::shared_gate:
    case module_role::shared_up:
    case module_role::shared_down: return component::shared_experts;
    case module_role::dense_gate:
    case module_role::dense_up:
    case module_role::dense_down: return component::dense;
    default: return component::norms;
  }
}

/// Parameters and the bytes that store them; `active` is what the computation of one token reads: the experts that it
/// is routed to (of average size), one row of the embedding, everything of the rest.
struct amount {
  index_t parameters = 0;
  index_t bytes = 0;
  index_t active_parameters = 0;
  index_t active_bytes = 0;

  amount& operator+=(amount const& other) {
    parameters += other.parameters;
    bytes += other.bytes;
    active_parameters += other.active_parameters;
    active_bytes += other.active_bytes;
    return *this;
  }
};

struct inspection {
  amount total{};                       ///< all tensors
  std::uint64_t file_bytes = 0;         ///< sizes of the safetensors files
  std::array<amount, 9> components{};   ///< by `component`
  std::vector<amount> layers{};         ///< by decoder layer
};

namespace detail {

/// Bytes and parameters of one module as stored; zeros when nothing is.
[[nodiscard]] inline amount stored_amount(std::vector<tensor_info> const& tensors, model_config const& config,
                                          module_id id) {
  amount result;
  model_family const& family = *config.family;
  tensor_info const* const plain = find_tensor(tensors, module_name(family, id));
  if (plain != nullptr) {
    result.bytes = static_cast<index_t>(plain->bytes);
    result.parameters = static_cast<index_t>(element_count(plain->shape).value_or(0));
    // Scales beside the weight.
    if (plain->type == dtype::bfloat16 || plain->type == dtype::float16 || plain->type == dtype::float32) return result;
  }
  std::string const prefix = module_stem(family, id) + ".";
  auto at = std::lower_bound(tensors.begin(), tensors.end(), prefix,
                             [](tensor_info const& tensor, std::string const& key) { return tensor.name < key; });
  bool found = false;
  for (; at != tensors.end() && at->name.compare(0, prefix.size(), prefix) == 0; ++at) {
    if (parse_module(family, at->name)) continue;
    result.bytes += static_cast<index_t>(at->bytes);
    found = true;
  }
  if (found && plain == nullptr) {
    result.parameters = 1;
    for (index_t const extent : module_shape(config, id)) result.parameters *= extent;
  }
  return result;
}

/// What one token uses of experts that hold `all` together.
inline void activate_experts(amount& all, index_t top_k, index_t experts) {
  all.active_parameters = experts == 0 ? 0 : all.parameters / experts * top_k;
  all.active_bytes = experts == 0 ? 0 : all.bytes / experts * top_k;
}

}  // namespace detail

/// Counts tensors (sorted by name) of a model whose dimensions are `config`. Cost: O(tensors log tensors).
[[nodiscard]] inline inspection inspect(std::vector<tensor_info> const& tensors, std::uint64_t file_bytes,
                                        model_config const& config) {
  inspection result;
  result.file_bytes = file_bytes;
  result.layers.resize(config.layers.size());
  auto const put = [&](module_role of, index_t layer, bool in_layer, amount const& stored) {
    result.components[static_cast<std::size_t>(component_of(of))] += stored;
    if (in_layer) result.layers[static_cast<std::size_t>(layer)] += stored;
    result.total += stored;
  };
  auto const everything_active = [](amount stored) {
    stored.active_parameters = stored.parameters;
    stored.active_bytes = stored.bytes;
    return stored;
  };
  // One expert after another, then the layer's experts at once, because only their sum can be active in part.
  std::vector<amount> experts(config.layers.size());
  for_each_module(config, [&](module_id id) {
    amount const stored = detail::stored_amount(tensors, config, id);
    bool const in_layer = id.role != module_role::embedding && id.role != module_role::head &&
                          id.role != module_role::final_norm;
    if (component_of(id.role) == component::experts) {
      experts[static_cast<std::size_t>(id.layer)] += stored;
    } else if (id.role == module_role::embedding) {
      amount row = everything_active(stored);
      // A tied embedding is also the head, which uses all of it.
      if (!config.tied_embeddings && config.vocabulary > 0) {
        row.active_parameters /= config.vocabulary;
        row.active_bytes /= config.vocabulary;
      }
      put(id.role, 0, false, row);
    } else {
      put(id.role, id.layer, in_layer, everything_active(stored));
    }
  });
  bool const has_novices = !config.family->pattern(module_role::novice).empty();
  for (index_t i = 0; i < config.layer_count(); ++i) {
    layer_config const& layer = config.layer(i);
    amount all = experts[static_cast<std::size_t>(i)];
    for (index_t e = 0; has_novices && e < layer.experts; ++e)
      if (tensor_info const* const novice =
              detail::find_tensor(tensors, module_name(*config.family, {module_role::novice, i, e})))
        all += {static_cast<index_t>(element_count(novice->shape).value_or(0)), static_cast<index_t>(novice->bytes)};
    detail::activate_experts(all, layer.top_k, layer.experts);
    put(module_role::gate, i, true, all);
  }
  amount rest;
  for (tensor_info const& tensor : tensors) rest.bytes += static_cast<index_t>(tensor.bytes);
  rest.bytes -= result.total.bytes;
  rest.active_bytes = rest.bytes;
  result.components[static_cast<std::size_t>(component::other)] += rest;
  result.total += rest;
  return result;
}

/// Counts a checkpoint whose dimensions are `config`; no data is read.
[[nodiscard]] inline inspection inspect(checkpoint const& model, model_config const& config) {
  return inspect(model.tensors(), model.file_bytes(), config);
}

namespace detail {

[[nodiscard]] inline ordered_json amount_json(amount const& of) {
  return {{"parameters", of.parameters},
          {"active_parameters", of.active_parameters},
          {"bytes", of.bytes},
          {"active_bytes", of.active_bytes}};
}

[[nodiscard]] inline std::string_view feed_forward_name(feed_forward_kind kind) {
  return kind == feed_forward_kind::moe ? "moe" : (kind == feed_forward_kind::dense ? "dense" : "none");
}

/// The number that all MoE layers share, or the list of the layers' numbers.
template <class Number>
[[nodiscard]] ordered_json common_number(model_config const& config, Number const& number) {
  ordered_json list = ordered_json::array();
  ordered_json common;
  bool equal = true;
  for (layer_config const& layer : config.layers) {
    bool const moe = layer.feed_forward == feed_forward_kind::moe;
    index_t const value = moe ? number(layer) : 0;
    list.push_back(value);
    if (!moe) continue;
    if (common.is_null()) common = value;
    equal = equal && common == value;
  }
  if (common.is_null()) return 0;
  return equal ? common : list;
}

}  // namespace detail

/// The report of `slimtrim inspect --json`. `bytes` is the size of the safetensors files; those of components and
/// layers are of their tensors. `experts` and `top_k` are numbers, or lists by layer where layers differ.
[[nodiscard]] inline ordered_json inspection_json(inspection const& seen, model_config const& config) {
  ordered_json json;
  json["family"] = std::string(config.family->model_type);
  json["layers"] = config.layer_count();
  json["experts"] = detail::common_number(config, [](layer_config const& layer) { return layer.experts; });
  json["top_k"] = detail::common_number(config, [](layer_config const& layer) { return layer.top_k; });
  json["parameters"] = seen.total.parameters;
  json["active_parameters"] = seen.total.active_parameters;
  json["bytes"] = seen.file_bytes;
  json["active_bytes"] = seen.total.active_bytes;
  json["hidden"] = config.hidden;
  json["heads"] = config.heads;
  json["key_value_heads"] = config.key_value_heads;
  json["vocabulary"] = config.vocabulary;
  ordered_json components = ordered_json::object();
  for (std::size_t i = 0; i < component_names.size(); ++i)
    if (seen.components[i].bytes != 0) components[std::string(component_names[i])] = detail::amount_json(seen.components[i]);
  json["components"] = std::move(components);
  ordered_json layers = ordered_json::array();
  for (index_t i = 0; i < config.layer_count(); ++i) {
    layer_config const& layer = config.layer(i);
    ordered_json one{{"layer", i},
                     {"attention", layer.attention},
                     {"feed_forward", std::string(detail::feed_forward_name(layer.feed_forward))},
                     {"experts", layer.experts},
                     {"top_k", layer.top_k},
                     {"intermediate", layer.intermediate}};
    if (!layer.original_experts.empty()) one["original_experts"] = layer.original_experts;
    one.update(detail::amount_json(seen.layers[static_cast<std::size_t>(i)]));
    layers.push_back(std::move(one));
  }
  json["layers_detail"] = std::move(layers);
  return json;
}

}  // namespace v0
}  // namespace slimtrim
