// compressed-tensors `pack-quantized`: <module>.weight_packed, weight_scale, weight_zero_point, weight_shape.
//
// The codes' bit stream is that of quantized_view, so they are read in place. 2- and 3-bit weights use the dense
// stream of current library versions; engines load 4 and 8 bit.
#pragma once

#include <slimtrim/io/json_fields.hpp>
#include <slimtrim/pipeline/format/packed_format.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace slimtrim {
inline namespace v0 {

class compressed_tensors_format final : public packed_format {
 public:
  [[nodiscard]] std::string_view method() const override { return "compressed-tensors"; }

  void check(std::string const& module, index_t, index_t columns, packed_scheme const& scheme) const override {
    if (scheme.bits < 2 || scheme.bits > 8)
      throw usage_error(module + ": compressed-tensors carries 2 to 8 bits, found " + std::to_string(scheme.bits));
    if (scheme.group != 0 && columns % scheme.group != 0)
      throw usage_error(module + ": group: expected a divisor of the " + std::to_string(columns) +
                        " inputs, found " + std::to_string(scheme.group));
  }

  [[nodiscard]] std::vector<tensor_description> describe(std::string const& module, index_t rows, index_t columns,
                                                         packed_scheme const& scheme) const override {
    index_t const groups = detail::scheme_groups(scheme, columns);
    std::vector<tensor_description> tensors{
        {module + ".weight_packed", dtype::int32, {rows, packed_words(columns, scheme.bits)}},
        {module + ".weight_scale", detail::dtype_of_scales(scheme.scales), {rows, groups}},
        {module + ".weight_shape", dtype::int64, {2}}};
    if (scheme.zero_points)
      tensors.push_back({module + ".weight_zero_point", dtype::int32, {packed_words(rows, scheme.bits), groups}});
    return tensors;
  }

  void emit(std::string const& module, quantized_view<> const& w, packed_scheme const& scheme,
            tensor_sink const& sink) const override {
    expects(w.column_group == nullptr, "compressed_tensors", "groups must be natural");
    sink(module + ".weight_packed",
         std::as_bytes(std::span(w.words, static_cast<std::size_t>(w.rows * w.words_per_row))));
    sink(module + ".weight_scale", detail::stored_scales(w.scales, scheme.scales, false));
    std::array<std::int64_t, 2> const shape{w.rows, w.columns};
    sink(module + ".weight_shape", std::as_bytes(std::span(shape)));
    if (scheme.zero_points) {
      auto const words = pack_zeros(w.zeros, w.bits);
      sink(module + ".weight_zero_point",
           std::as_bytes(std::span(words.view().data, static_cast<std::size_t>(words.view().size()))));
    }
  }

  [[nodiscard]] bool holds(checkpoint const& from, std::string const& module) const override {
    return from.find(module + ".weight_packed") != nullptr;
  }

  [[nodiscard]] packed_scheme scheme_of(checkpoint const& from, std::string const& module, index_t rows,
                                        index_t columns) const override {
    tensor_info const& packed = from.at(module + ".weight_packed");
    tensor_info const& scales = from.at(module + ".weight_scale");
    packed_scheme scheme;
    scheme.bits = 0;
    // Below 32 columns several widths need the same number of words: the one that config.json names is meant.
    for (int bits = 1; bits <= 8; ++bits)
      if (packed.shape == std::vector<index_t>{rows, packed_words(columns, bits)} &&
          (scheme.bits == 0 || (names(from, "num_bits", bits) && !names(from, "num_bits", scheme.bits))))
        scheme.bits = bits;
    if (scheme.bits == 0)
      throw input_error(from.place(), "tensor '" + printable(packed.name) + "': shape: expected the words of [" +
                                          std::to_string(rows) + ", " + std::to_string(columns) +
                                          "] codes of 1 to 8 bits");
    if (scales.shape.size() != 2 || scales.shape[0] != rows || scales.shape[1] < 1 || columns % scales.shape[1] != 0)
      throw input_error(from.place(), "tensor '" + printable(scales.name) + "': shape: expected [" +
                                          std::to_string(rows) + ", a divisor of " + std::to_string(columns) + "]");
    // One scale a row is a channel's, or a group's that is as wide as the matrix: config.json says which was meant.
    scheme.group = scales.shape[1] == 1 && !names(from, "group_size", columns) ? 0 : columns / scales.shape[1];
    scheme.zero_points = from.find(module + ".weight_zero_point") != nullptr;
    scheme.scales = detail::scale_type_of(from, scales);
    return scheme;
  }

  [[nodiscard]] weight read(checkpoint const& from, std::string const& module, index_t rows, index_t columns,
                            std::shared_ptr<void const> keep) const override {
    packed_scheme const scheme = scheme_of(from, module, rows, columns);
    tensor_info const& packed = from.at(module + ".weight_packed");
    detail::require_shape(from, packed, dtype::int32, rows, packed_words(columns, scheme.bits));
    if (tensor_info const* const shape = from.find(module + ".weight_shape")) {
      auto const stored = from.load<std::int64_t>(*shape);
      if (stored != std::vector<std::int64_t>{rows, columns})
        throw input_error(from.place(), "tensor '" + printable(shape->name) + "': expected " + std::to_string(rows) +
                                            ", " + std::to_string(columns));
    }
    auto parts = std::make_shared<detail::packed_parts>();
    parts->keep = std::move(keep);
    parts->scales = detail::loaded_scales(from, from.at(module + ".weight_scale"));
    index_t const groups = parts->scales.extent(1);
    if (scheme.zero_points) {
      tensor_info const& zeros = from.at(module + ".weight_zero_point");
      detail::require_shape(from, zeros, dtype::int32, packed_words(rows, scheme.bits), groups);
      parts->zeros = unpack_zeros(detail::mapped_words(from, zeros), rows, scheme.bits);
    }
    quantized_view<> view;
    view.rows = rows;
    view.columns = columns;
    view.bits = scheme.bits;
    view.words = detail::mapped_words(from, packed).data;
    view.words_per_row = packed.shape[1];
    view.block_columns = columns / groups;
    if (tensor_info const* const order = from.find(module + ".weight_g_idx")) {
      auto column_group = detail::loaded_column_groups(from, *order, columns, groups);
      if (!detail::natural_groups(column_group, view.block_columns)) parts->column_group = std::move(column_group);
    }
    return detail::packed_weight(std::move(parts), view);
  }

  [[nodiscard]] ordered_json config(std::vector<scheme_group> const& groups,
                                    std::vector<std::string> const& ignore) const override {
    ordered_json config_groups = ordered_json::object();
    for (std::size_t i = 0; i < groups.size(); ++i) {
      packed_scheme const& scheme = groups[i].scheme;
      // One scheme for all that is not ignored is said by class, as loaders expect; several by module name.
      ordered_json targets = ordered_json::array();
      if (groups.size() == 1) {
        targets.push_back("Linear");
      } else {
        for (std::string const& module : groups[i].modules) targets.push_back(module);
      }
      ordered_json const weights{{"num_bits", scheme.bits},
                                 {"type", "int"},
                                 {"symmetric", !scheme.zero_points},
                                 {"strategy", scheme.group == 0 ? "channel" : "group"},
                                 {"group_size", scheme.group == 0 ? ordered_json(nullptr) : ordered_json(scheme.group)},
                                 {"block_structure", nullptr},
                                 {"dynamic", false},
                                 {"actorder", scheme.activation_order ? ordered_json("weight") : ordered_json(nullptr)},
                                 {"observer", "minmax"},
                                 {"observer_kwargs", ordered_json::object()}};
      config_groups["group_" + std::to_string(i)] = ordered_json{{"targets", targets},
                                                                 {"input_activations", nullptr},
                                                                 {"output_activations", nullptr},
                                                                 {"format", "pack-quantized"},
                                                                 {"weights", weights}};
    }
    return ordered_json{{"quant_method", "compressed-tensors"},
                        {"version", "0.15.0"},
                        {"format", "pack-quantized"},
                        {"quantization_status", "compressed"},
                        {"global_compression_ratio", nullptr},
                        {"kv_cache_scheme", nullptr},
                        {"ignore", ignore},
                        {"sparsity_config", ordered_json::object()},
                        {"transform_config", ordered_json::object()},
                        {"config_groups", config_groups}};
  }

 private:
  // Whether any group of the checkpoint's config.json has this number of bits.
  // Whether some group of the configuration has this value.
  [[nodiscard]] static bool names(checkpoint const& from, char const* key, index_t value) {
    ordered_json const* const quantization = find_field(from.config(), "quantization_config");
    ordered_json const* const groups = quantization != nullptr ? find_field(*quantization, "config_groups") : nullptr;
    if (groups == nullptr || !groups->is_object()) return false;
    for (ordered_json const& group : *groups) {
      ordered_json const* const weights = find_field(group, "weights");
      ordered_json const* const stored = weights != nullptr ? find_field(*weights, key) : nullptr;
      if (stored != nullptr && *stored == value) return true;
    }
    return false;
  }
};

}  // namespace v0
}  // namespace slimtrim
