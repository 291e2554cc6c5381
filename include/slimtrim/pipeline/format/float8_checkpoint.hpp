// 8-bit floats with scales: <module>.weight in E4M3 beside <module>.weight_scale_inv (DeepSeek-V3: one scale for each
// block of 128 x 128) or <module>.weight_scale (compressed-tensors `float-quantized`: one a tensor, a row or a block).
//
// Read and trimmed, not written: what stays is copied byte for byte, scales with their weights.
#pragma once

#include <slimtrim/core/float8.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/io/json_fields.hpp>
#include <slimtrim/pipeline/format/packed_format.hpp>

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Rows and columns that share a scale, as config.json says it; nothing where it names no blocks.
using float8_block = std::optional<std::pair<index_t, index_t>>;

/// W = float(weight) * scale, in float32; memory of a read matrix: 4 bytes an element.
class float8_checkpoint_format final : public packed_format {
 public:
  /// `method`: what quantization_config calls it, "fp8" or "compressed-tensors".
  float8_checkpoint_format(std::string method, float8_block block) : method_(std::move(method)), block_(block) {}

  [[nodiscard]] std::string_view method() const override { return method_; }
  [[nodiscard]] bool writes() const override { return false; }

  void check(std::string const& module, index_t, index_t, packed_scheme const&) const override { refuse(module); }
  [[nodiscard]] std::vector<tensor_description> describe(std::string const& module, index_t, index_t,
                                                         packed_scheme const&) const override {
    refuse(module);
  }
  void emit(std::string const& module, quantized_view<> const&, packed_scheme const&,
            tensor_sink const&) const override {
    refuse(module);
  }
  [[nodiscard]] ordered_json config(std::vector<scheme_group> const&, std::vector<std::string> const&) const override {
    refuse("config.json");
  }

  [[nodiscard]] bool holds(checkpoint const& from, std::string const& module) const override {
    tensor_info const* const codes = from.find(module + ".weight");
    return codes != nullptr && codes->type == dtype::float8_e4m3;
  }

  /// Bits and scales; `group` is the columns that share a scale, 0: all.
  [[nodiscard]] packed_scheme scheme_of(checkpoint const& from, std::string const& module, index_t rows,
                                        index_t columns) const override {
    detail::require_shape(from, from.at(module + ".weight"), dtype::float8_e4m3, rows, columns);
    tensor_info const& scales = scales_of(from, module);
    packed_scheme scheme;
    scheme.bits = 8;
    scheme.scales = detail::scale_type_of(from, scales);
    index_t const wide = block_of(from, scales, rows, columns).second;
    scheme.group = wide >= columns ? 0 : wide;
    return scheme;
  }

  [[nodiscard]] weight read(checkpoint const& from, std::string const& module, index_t rows, index_t columns,
                            std::shared_ptr<void const>) const override {
    tensor_info const& codes = from.at(module + ".weight");
    detail::require_shape(from, codes, dtype::float8_e4m3, rows, columns);
    tensor_info const& stored = scales_of(from, module);
    auto const [high, wide] = block_of(from, stored, rows, columns);
    tensor_info as_matrix = stored;
    as_matrix.shape = {ceil_div(rows, high), ceil_div(columns, wide)};
    matrix<float> const scales = detail::loaded_scales(from, as_matrix);
    auto const bytes = from.bytes(codes);
    tensor<float, 2> values(rows, columns);
    for (index_t r = 0; r < rows; ++r)
      for (index_t c = 0; c < columns; ++c) {
        auto const code = static_cast<std::uint8_t>(bytes[static_cast<std::size_t>(r * columns + c)]);
        float const value = static_cast<float>(float8_e4m3::from_bits(code));
        if (std::isnan(value))
          throw input_error(from.place(), "tensor '" + printable(codes.name) + "': element " +
                                              std::to_string(r * columns + c) + ": expected a finite value");
        values(r, c) = value * scales(r / high, c / wide);
      }
    return own_weight(std::move(values));
  }

 private:
  [[noreturn]] static void refuse(std::string const& module) {
    throw usage_error(module +
                      ": 8-bit floats are read and trimmed, not written: expected a recipe without quantisation");
  }
  [[nodiscard]] static tensor_info const& scales_of(checkpoint const& from, std::string const& module) {
    if (tensor_info const* const inverse = from.find(module + ".weight_scale_inv")) return *inverse;
    return from.at(module + ".weight_scale");
  }
  // Rows and columns that share one of `scales`.
  [[nodiscard]] std::pair<index_t, index_t> block_of(checkpoint const& from, tensor_info const& scales, index_t rows,
                                                     index_t columns) const {
    std::vector<index_t> const& shape = scales.shape;
    if (shape.empty() || shape == std::vector<index_t>{1} || shape == std::vector<index_t>{1, 1}) {
      if (!block_ || (block_->first >= rows && block_->second >= columns)) return {rows, columns};
    } else if (!block_ && (shape == std::vector<index_t>{rows, 1} || shape == std::vector<index_t>{rows})) {
      return {1, columns};
    }
    if (block_ && shape == std::vector<index_t>{ceil_div(rows, block_->first), ceil_div(columns, block_->second)})
      return *block_;
    throw input_error(from.place(), "tensor '" + printable(scales.name) + "': shape: expected " +
                                        (block_ ? "one scale for each block of " + std::to_string(block_->first) +
                                                      " x " + std::to_string(block_->second)
                                                : std::string("one scale, or one a row,")) +
                                        " of [" + std::to_string(rows) + ", " + std::to_string(columns) + "]");
  }

  std::string method_;
  float8_block block_;
};

namespace detail {

/// [rows, columns] under `key` of `object`. Throws `input_error` naming the field when it is there and no such pair.
[[nodiscard]] inline float8_block read_float8_block(ordered_json const& object, char const* key,
                                                    std::string const& place) {
  ordered_json const* const found = find_field(object, key);
  if (found == nullptr || found->is_null()) return std::nullopt;
  bool good = found->is_array() && found->size() == 2;
  for (std::size_t d = 0; good && d < 2; ++d)
    good = (*found)[d].is_number_integer() && (*found)[d].get<std::int64_t>() > 0 &&
           (*found)[d].get<std::int64_t>() < (1 << 24);
  if (!good)
    throw input_error(place, "field 'quantization_config." + std::string(key) +
                                 "': expected two whole numbers, found " + printable(found->dump(), 64));
  return std::pair<index_t, index_t>((*found)[0].get<index_t>(), (*found)[1].get<index_t>());
}

/// The format of a checkpoint whose quantization_config speaks of 8-bit floats; null: it does not. Throws `input_error`
/// for another kind of float, or groups with different blocks.
[[nodiscard]] inline std::shared_ptr<packed_format const> stored_float8(ordered_json const& quantization,
                                                                        std::string const& method,
                                                                        std::string const& place) {
  if (method == "fp8") {
    ordered_json const* const kind = find_field(quantization, "fmt");
    if (kind != nullptr && *kind != "e4m3")
      throw input_error(place,
                        "field 'quantization_config.fmt': expected \"e4m3\", found " + printable(kind->dump(), 64));
    return std::make_shared<float8_checkpoint_format>("fp8",
                                                      read_float8_block(quantization, "weight_block_size", place));
  }
  ordered_json const* const layout = find_field(quantization, "format");
  if (method != "compressed-tensors" || layout == nullptr || *layout != "float-quantized") return nullptr;
  float8_block block;
  bool first = true;
  if (ordered_json const* const groups = find_field(quantization, "config_groups");
      groups != nullptr && groups->is_object())
    for (ordered_json const& group : *groups) {
      ordered_json const* const weights = find_field(group, "weights");
      if (weights == nullptr || !weights->is_object()) continue;
      float8_block const own = read_float8_block(*weights, "block_structure", place);
      if (!first && own != block)
        throw input_error(place,
                          "field 'quantization_config.config_groups': expected the same block_structure in all groups");
      block = own;
      first = false;
    }
  return std::make_shared<float8_checkpoint_format>("compressed-tensors", block);
}

}  // namespace detail

}  // namespace v0
}  // namespace slimtrim
