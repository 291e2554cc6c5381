// What config.json says about a model, believed only within the ranges that its use can bear.
//
// Reads the stock form of every known family, the per-layer expert lists of Unified-MoE-Compression (arXiv 2406.02500)
// and the drop lists of LLM-Drop (arXiv 2406.15786), so that trimmed checkpoints are ordinary models here.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/json.hpp>
#include <slimtrim/io/json_fields.hpp>
#include <slimtrim/model/known_families.hpp>
#include <slimtrim/model/model_config.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The most that config.json may ask for; beyond, a value is taken for damage.
struct model_limits {
  static constexpr index_t layers = 4096;
  static constexpr index_t experts = 65536;
  static constexpr index_t width = index_t{1} << 24;  ///< hidden, intermediate, heads * head_dim
  static constexpr index_t vocabulary = index_t{1} << 28;
  static constexpr index_t positions = index_t{1} << 40;
};

namespace detail {

/// Reads one config.json; its members fill `result` in order.
class model_config_reader {
 public:
  model_config_reader(ordered_json const& config, std::string_view file)
      : config_(config), file_(file), family_(find_family(require_string(config, "model_type", file), file)) {
    result_.family = &family_;
  }

  [[nodiscard]] model_config read() {
    read_dimensions();
    refuse_unsupported();
    read_routing();
    read_layers();
    read_drop_lists();
    return std::move(result_);
  }

 private:
  [[noreturn]] void refuse(std::string_view field, std::string const& expected, std::string const& found) const {
    refuse_field(file_, field, expected, found);
  }

  void read_dimensions() {
    model_config& m = result_;
    m.hidden = require_integer(config_, "hidden_size", 1, model_limits::width, file_);
    m.vocabulary = require_integer(config_, "vocab_size", 1, model_limits::vocabulary, file_);
    m.heads = require_integer(config_, "num_attention_heads", 1, model_limits::width, file_);
    m.key_value_heads = optional_integer(config_, "num_key_value_heads", 1, m.heads, file_).value_or(m.heads);
    if (m.heads % m.key_value_heads != 0)
      refuse("num_key_value_heads", "a divisor of num_attention_heads (" + std::to_string(m.heads) + ")",
             std::to_string(m.key_value_heads));
    auto const head_dim = optional_integer(config_, "head_dim", 2, model_limits::width, file_);
    if (!head_dim && m.hidden % m.heads != 0)
      refuse("num_attention_heads", "a divisor of hidden_size (" + std::to_string(m.hidden) + ")",
             std::to_string(m.heads));
    m.head_dim = head_dim.value_or(m.hidden / m.heads);
    if (m.head_dim % 2 != 0) refuse("head_dim", "an even number", std::to_string(m.head_dim));
    if (m.head_dim > model_limits::width / m.heads)
      refuse("head_dim", "at most " + std::to_string(model_limits::width / m.heads), std::to_string(m.head_dim));
    m.maximum_positions =
        optional_integer(config_, "max_position_embeddings", 1, model_limits::positions, file_).value_or(0);
    m.rms_epsilon = optional_number(config_, "rms_norm_eps", 0, 1, file_).value_or(family_.rms_epsilon);
    m.rope_theta = optional_number(config_, "rope_theta", 1, 1e15, file_).value_or(family_.rope_theta);
    m.tied_embeddings = optional_boolean(config_, "tie_word_embeddings", file_).value_or(false);
    read_storage();
  }

  void read_storage() {
    for (std::string_view const field : {"torch_dtype", "dtype"})
      if (auto const name = optional_string(config_, field, file_)) {
        result_.storage = *name == "bfloat16" ? dtype::bfloat16
                          : *name == "float16" ? dtype::float16
                          : *name == "float32" ? dtype::float32
                                               : dtype::unknown;
        return;
      }
  }

  /// Settings that change what the model computes, in ways that the forward pass does not follow.
  void refuse_unsupported() {
    if (auto const act = optional_string(config_, "hidden_act", file_); act && *act != "silu")
      refuse("hidden_act", "silu", "'" + printable(*act, 40) + "'");
    for (std::string_view const field : {"attention_bias", "mlp_bias", "qkv_bias", "use_qk_norm"})
      if (optional_boolean(config_, field, file_).value_or(false)) refuse(field, "false", "true");
    if (auto const window = optional_integer(config_, "sliding_window", 1, model_limits::positions, file_))
      result_.sliding_window = *window;
    read_rope_scaling();
    if (auto const* const groups = find_field(config_, "n_group"); groups != nullptr && !groups->is_null())
      if (integer_value(*groups, "n_group", 1, model_limits::experts, file_) != 1)
        refuse("n_group", "1", json_found(*groups));
  }

  void read_rope_scaling() {
    for (std::string_view const field : {"rope_scaling", "rope_parameters"}) {
      ordered_json const* const scaling = find_field(config_, field);
      if (scaling == nullptr || scaling->is_null()) continue;
      if (!scaling->is_object()) refuse(field, "an object or null", json_found(*scaling));
      auto type = optional_string(*scaling, "rope_type", file_);
      if (!type) type = optional_string(*scaling, "type", file_);
      if (auto const theta = optional_number(*scaling, "rope_theta", 1, 1e15, file_)) result_.rope_theta = *theta;
      if (!type || *type == "default") continue;
      if (*type != "linear") refuse(field, "type default or linear", "'" + printable(*type, 40) + "'");
      result_.rope_factor = require_number(*scaling, "factor", 1, 1e6, file_);
    }
  }

  void read_routing() {
    config_keys const& keys = family_.keys;
    routing_rule& rule = result_.routing;
    rule = family_.routing;
    result_.top_k = require_integer(config_, keys.top_k, 1, model_limits::experts, file_);
    rule.top_k = result_.top_k;
    if (!keys.renormalise.empty())
      rule.renormalise = optional_boolean(config_, keys.renormalise, file_).value_or(rule.renormalise);
    // A lone weight is never divided by itself where renormalisation is a choice.
    if (!keys.renormalise.empty() && result_.top_k == 1) rule.renormalise = false;
    if (!keys.scale.empty())
      rule.scale = static_cast<float>(optional_number(config_, keys.scale, 0, 1e6, file_).value_or(1));
    if (!keys.score.empty())
      if (auto const score = optional_string(config_, keys.score, file_); score && *score != "softmax")
        refuse(keys.score, "softmax", "'" + printable(*score, 40) + "'");
    if (!keys.group_method.empty())
      if (auto const method = optional_string(config_, keys.group_method, file_); method && *method != "greedy")
        refuse(keys.group_method, "greedy", "'" + printable(*method, 40) + "'");
  }

  /// A width that is one number for all layers or a list with one for each.
  [[nodiscard]] index_t width_of(std::string_view field, index_t layer) const {
    if (field.empty()) return 0;
    ordered_json const& value = require_field(config_, field, file_);
    if (!value.is_array()) return integer_value(value, field, 1, model_limits::width, file_);
    require_layer_list(value, field);
    ordered_json const& entry = value[static_cast<std::size_t>(layer)];
    return entry.is_null() ? 0 : integer_value(entry, field, 1, model_limits::width, file_);
  }

  void require_layer_list(ordered_json const& value, std::string_view field) const {
    if (!value.is_array() || value.size() != result_.layers.size())
      refuse(field, "a list of " + std::to_string(result_.layers.size()) + " entries (num_hidden_layers)",
             value.is_array() ? "a list of " + std::to_string(value.size()) : json_found(value));
  }

  void read_layers() {
    config_keys const& keys = family_.keys;
    index_t const count = require_integer(config_, "num_hidden_layers", 1, model_limits::layers, file_);
    result_.layers.resize(static_cast<std::size_t>(count));
    ordered_json const& experts = require_field(config_, keys.experts, file_);
    bool const listed = experts.is_array();
    if (listed) require_layer_list(experts, keys.experts);
    index_t const first_dense =
        keys.first_dense.empty() ? 0
                                 : optional_integer(config_, keys.first_dense, 0, count, file_).value_or(0);
    index_t const frequency =
        keys.moe_frequency.empty()
            ? 1
            : optional_integer(config_, keys.moe_frequency, 1, model_limits::layers, file_).value_or(1);
    for (index_t i = 0; i < count; ++i) {
      layer_config& layer = result_.layers[static_cast<std::size_t>(i)];
      bool const moe_by_place = i >= first_dense && i % frequency == 0;
      read_experts(listed ? experts[static_cast<std::size_t>(i)] : experts, listed, moe_by_place, layer);
      if (layer.feed_forward == feed_forward_kind::dense) {
        if (keys.dense_intermediate.empty())
          refuse(keys.experts, "experts in layer " + std::to_string(i) + " (the family has no dense layers)", "null");
        layer.intermediate = width_of(keys.dense_intermediate, i);
        if (layer.intermediate == 0) refuse(keys.dense_intermediate, "a width for layer " + std::to_string(i), "null");
      } else if (layer.feed_forward == feed_forward_kind::moe) {
        layer.intermediate = width_of(keys.expert_intermediate, i);
        if (layer.intermediate == 0)
          refuse(keys.expert_intermediate, "a width for layer " + std::to_string(i), "null");
        read_shared(layer);
      }
    }
    read_original_experts();
  }

  void read_experts(ordered_json const& entry, bool listed, bool moe_by_place, layer_config& layer) const {
    std::string_view const field = family_.keys.experts;
    layer.feed_forward = moe_by_place ? feed_forward_kind::moe : feed_forward_kind::dense;
    if (entry.is_null()) {
      layer.feed_forward = feed_forward_kind::dense;
      return;
    }
    if (listed && entry.is_number_integer() && entry == -1) {
      layer.feed_forward = feed_forward_kind::none;
      return;
    }
    if (listed && entry.is_number_integer() && entry == 0)
      refuse(field, "a count, -1 (experts and norm removed) or null (dense)",
             "0 (experts removed, norm kept: not supported)");
    index_t const count = integer_value(entry, field, 1, model_limits::experts, file_);
    if (!moe_by_place) {
      if (listed) refuse(field, "null for a layer without experts", std::to_string(count));
      return;
    }
    layer.experts = count;
    if (!listed && result_.top_k > count)
      refuse(family_.keys.top_k, "at most the number of experts (" + std::to_string(count) + ")",
             std::to_string(result_.top_k));
    layer.top_k = std::min(result_.top_k, count);
  }

  void read_shared(layer_config& layer) const {
    std::string_view const field = family_.keys.shared_experts;
    if (field.empty()) return;
    index_t const count = optional_integer(config_, field, 0, model_limits::experts, file_).value_or(0);
    if (count > model_limits::width / layer.intermediate)
      refuse(field, "at most " + std::to_string(model_limits::width / layer.intermediate), std::to_string(count));
    layer.shared_intermediate = count * layer.intermediate;
  }

  void read_original_experts() {
    constexpr std::string_view field = "layer_experts_idx";
    ordered_json const* const lists = find_field(config_, field);
    if (lists == nullptr || lists->is_null()) return;
    require_layer_list(*lists, field);
    for (std::size_t i = 0; i < lists->size(); ++i) {
      ordered_json const& list = (*lists)[i];
      layer_config& layer = result_.layers[i];
      if (list.is_null() || (list.is_array() && list.empty())) continue;
      if (!list.is_array() || static_cast<index_t>(list.size()) != layer.experts)
        refuse(field, "a list of " + std::to_string(layer.experts) + " experts for layer " + std::to_string(i),
               list.is_array() ? "a list of " + std::to_string(list.size()) : json_found(list));
      std::vector<index_t> originals;
      for (ordered_json const& entry : list)
        originals.push_back(integer_value(entry, field, 0, model_limits::experts - 1, file_));
      std::vector<index_t> sorted = originals;
      std::sort(sorted.begin(), sorted.end());
      if (auto const twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end())
        refuse(field, "every expert once in layer " + std::to_string(i), std::to_string(*twice) + " twice");
      layer.original_experts = std::move(originals);
    }
  }

  /// LLM-Drop: a list of layer numbers, or one boolean for every layer.
  [[nodiscard]] std::vector<index_t> read_drop_list(std::string_view field) const {
    std::vector<index_t> dropped;
    ordered_json const* const list = find_field(config_, field);
    if (list == nullptr || list->is_null()) return dropped;
    if (!list->is_array()) refuse(field, "a list of layers", json_found(*list));
    if (list->empty()) return dropped;
    bool const flags = list->front().is_boolean();
    if (flags) require_layer_list(*list, field);
    for (std::size_t i = 0; i < list->size(); ++i) {
      ordered_json const& entry = (*list)[i];
      if (!flags) {
        dropped.push_back(integer_value(entry, field, 0, result_.layer_count() - 1, file_));
      } else {
        if (!entry.is_boolean()) refuse(field, "true or false", json_found(entry));
        if (entry.get<bool>()) dropped.push_back(static_cast<index_t>(i));
      }
    }
    return dropped;
  }

  void read_drop_lists() {
    for (index_t const i : read_drop_list("drop_attn_list"))
      result_.layers[static_cast<std::size_t>(i)].attention = false;
    for (index_t const i : read_drop_list("drop_mlp_list")) {
      layer_config& layer = result_.layers[static_cast<std::size_t>(i)];
      layer_config dropped;
      dropped.attention = layer.attention;
      dropped.feed_forward = feed_forward_kind::none;
      layer = std::move(dropped);
    }
  }

  ordered_json const& config_;
  std::string_view file_;
  model_family const& family_;
  model_config result_{};
};

}  // namespace detail

/// Reads a parsed config.json; `file` is its place in messages. Allocates one small struct per layer (at most 4096) and
/// nothing else in proportion to a declared size. Throws `input_error` that names the field when a value is missing, of
/// the wrong type, out of range, contradicts another, or asks for something that the forward pass does not do.
[[nodiscard]] inline model_config read_model_config(ordered_json const& config, std::string_view file) {
  return detail::model_config_reader(config, file).read();
}

}  // namespace v0
}  // namespace slimtrim
