// The tensors of the output, one task each: copied, copied without the rows of dropped experts, or slimmed.
#pragma once

#include <slimtrim/io/checkpoint.hpp>
#include <slimtrim/model/module.hpp>
#include <slimtrim/pipeline/format/packed_format.hpp>
#include <slimtrim/pipeline/plan.hpp>
#include <slimtrim/pipeline/targets.hpp>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// One tensor that is copied byte for byte, or row by row.
struct copied_tensor {
  tensor_info source{};
  std::string name{};
  std::optional<std::vector<index_t>> rows{};  ///< only these, of dimension `row_dimension`; absent: all
  std::optional<module_id> module{};           ///< of the input, where the tensor is a whole one
};

/// One module whose weight is changed: by slim steps, or by what the plan does inside its expert.
struct slimmed_module {
  module_id from{};
  module_id to{};
  std::string stem{};  ///< of the output's tensors
  index_t rows = 0;
  index_t columns = 0;
  std::vector<step> steps{};                ///< in order; none where the plan alone changes the weight
  std::optional<packed_scheme> scheme{};    ///< when the last word is a packed one; else dense
  tensor_description dense{};               ///< used without scheme: the tensor as the input had it
};

/// One vector that the plan itself holds, written as float32.
struct constant_tensor {
  tensor_description tensor{};
  std::vector<float> values{};
};

/// Everything that will be written, in the order of the model.
struct output_modules {
  std::vector<copied_tensor> copies{};
  std::vector<slimmed_module> slimmed{};
  std::vector<constant_tensor> constants{};  ///< novices
  std::vector<std::string> dense_linears{};  ///< stems of output linears that stay dense
  std::vector<std::string> passed_through{}; ///< tensors that the family does not know
};

/// Decides for every tensor of `input`. Throws `input_error` when a tensor unknown to the family names a layer that is
/// renumbered in a way that cannot be followed, or a slim step, a merge or a loss of neurons hits a weight that is packed
/// already; `usage_error` when the family has no name for a novice.
[[nodiscard]] inline output_modules list_output_modules(checkpoint const& input, model_config const& config,
                                                        plan const& p, scale_type scales) {
  model_family const& family = *config.family;
  model_config const planned = planned_config(config, p);
  output_modules result;
  // "model.layers." in front of a number: where an unknown tensor names its layer.
  std::string layer_prefix(family.pattern(module_role::attention_norm));
  layer_prefix.resize(std::min(layer_prefix.find("{layer}"), layer_prefix.size()));

  struct entry {
    index_t order = 0;
    tensor_info const* tensor = nullptr;
    std::optional<module_id> id{};
    std::string suffix{};
  };
  std::vector<entry> entries;
  for (tensor_info const& tensor : input.tensors()) {
    entry e;
    e.tensor = &tensor;
    std::string_view suffix;
    if (auto const id = parse_module(family, tensor.name)) {
      e.id = id;
    } else if (auto const part = parse_module_part(family, tensor.name, suffix)) {
      e.id = part;
      e.suffix = suffix;
    }
    bool const in_layers = e.id && (is_attention_role(e.id->role) || is_feed_forward_role(e.id->role));
    bool const at_end = e.id && (e.id->role == module_role::head || e.id->role == module_role::final_norm);
    e.order = in_layers ? e.id->layer : (at_end ? config.layer_count() : (e.id ? index_t{-1} : config.layer_count() + 1));
    entries.push_back(std::move(e));
  }
  // Layers in order, and inside a layer by name: the order in which the streaming pass writes.
  std::stable_sort(entries.begin(), entries.end(), [](entry const& a, entry const& b) { return a.order < b.order; });

  for (entry const& e : entries) {
    tensor_info const& tensor = *e.tensor;
    if (!e.id) {
      std::string name = tensor.name;
      if (!layer_prefix.empty() && name.compare(0, layer_prefix.size(), layer_prefix) == 0) {
        std::string_view rest(name);
        rest.remove_prefix(layer_prefix.size());
        index_t layer = 0;
        if (detail::take_number(rest, layer)) {
          auto const target = planned_layer(p, layer);
          if (layer < config.layer_count() && !target) continue;
          if (target) name = layer_prefix + std::to_string(*target) + std::string(rest);
        }
      }
      result.copies.push_back({tensor, std::move(name), std::nullopt, std::nullopt});
      result.passed_through.push_back(tensor.name);
      continue;
    }
    auto const target = planned_module(p, *e.id);
    if (!target) continue;
    if (e.id->role == module_role::novice && p.layer(e.id->layer).find_novice(e.id->expert) != nullptr) continue;
    std::vector<step> steps;
    for (step const& s : p.slimming)
      if (is_target(s, family, *e.id)) steps.push_back(s);
    std::string const stem = module_stem(family, *target);
    bool const changed = is_expert_matrix_role(e.id->role) && p.layer(e.id->layer).changes_weights(e.id->expert);
    if (!steps.empty() || changed) {
      bool const plain = tensor.type == dtype::bfloat16 || tensor.type == dtype::float16 || tensor.type == dtype::float32;
      if (!e.suffix.empty() || !plain)
        throw input_error(input.place(), "tensor '" + printable(tensor.name) + "': is packed already, and the recipe would " +
                                             (changed ? "merge it or take neurons from it" : "slim it again"));
      slimmed_module m;
      m.from = *e.id;
      m.to = *target;
      m.stem = stem;
      m.dense.name = module_name(family, *target);
      m.dense.type = tensor.type;
      m.dense.shape = tensor.shape;
      if (changed) m.dense.shape = module_shape(planned, *target);
      m.rows = m.dense.shape[0];
      m.columns = m.dense.shape[1];
      if (e.id->role == module_role::router) m.rows = m.dense.shape[0] = static_cast<index_t>(p.layer(e.id->layer).experts.size());
      for (step const& s : steps)
        if (is_quantization(s.method)) {
          packed_scheme scheme;
          scheme.bits = s.quantization.bits;
          // A group wider than the row is the channel. One as wide stays a group: engines know one scheme a model best.
          scheme.group = s.quantization.group > m.columns ? 0 : s.quantization.group;
          scheme.zero_points = s.quantization.zero_points;
          sweep_order const order = s.quantization.order;
          // A sweep behind pruning takes the columns as they come.
          scheme.activation_order = s.method == method::gptq && std::none_of(steps.begin(), steps.end(), [](step const& one) { return is_pruning(one.method); }) &&
                                    (order == sweep_order::activation || (order == sweep_order::automatic && s.quantization.bits >= 3));
          scheme.scales = scales;
          m.scheme = scheme;
        }
      m.steps = std::move(steps);
      if (!m.scheme) result.dense_linears.push_back(stem);
      result.slimmed.push_back(std::move(m));
      continue;
    }
    copied_tensor copy;
    copy.source = tensor;
    if (e.suffix.empty()) copy.module = *e.id;
    copy.name = e.suffix.empty() ? module_name(family, *target) : stem + "." + e.suffix;
    bool const sliced = (e.id->role == module_role::router || e.id->role == module_role::router_bias) &&
                        static_cast<index_t>(p.layer(e.id->layer).experts.size()) < config.layer(e.id->layer).experts;
    if (sliced) copy.rows = p.layer(e.id->layer).experts;
    if (e.suffix.empty() && is_matrix_role(e.id->role) && e.id->role != module_role::embedding)
      result.dense_linears.push_back(stem);
    result.copies.push_back(std::move(copy));
  }
  for (index_t i = 0; i < config.layer_count(); ++i)
    for (novice const& each : p.layer(i).novices) {
      auto const target = planned_module(p, {module_role::novice, i, each.expert});
      if (!target) continue;
      std::string const name = module_name(family, *target);
      if (name.empty()) throw usage_error("novice: the family " + std::string(family.model_type) + " has no name for novices");
      result.constants.push_back({{name, dtype::float32, {static_cast<index_t>(each.constant.size())}}, each.constant});
    }
  return result;
}

}  // namespace v0
}  // namespace slimtrim
