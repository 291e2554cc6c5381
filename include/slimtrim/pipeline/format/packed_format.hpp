// What a packed on-disk format is: the tensors that stand for one quantised matrix, how they are read back without
// expanding them, and what config.json says about them. One format a file beside this one.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/checkpoint.hpp>
#include <slimtrim/io/json_fields.hpp>
#include <slimtrim/linalg/weight.hpp>
#include <slimtrim/slim/quantize/quantized_matrix.hpp>

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// How one matrix is quantised, as far as a format must know to lay out its tensors.
struct packed_scheme {
  int bits = 4;
  index_t group = 128;  ///< inputs that share a scale; 0: the whole channel
  bool zero_points = false;
  bool activation_order = false;  ///< swept by activation, groups natural: only recorded
  scale_type scales = scale_type::bfloat16;
  friend bool operator==(packed_scheme const&, packed_scheme const&) = default;
};

/// Receives the tensors of one matrix: name and bytes.
using tensor_sink = std::function<void(std::string const&, std::span<std::byte const>)>;

/// Modules that share a scheme. `modules` are names without `.weight`.
struct scheme_group {
  packed_scheme scheme;
  std::vector<std::string> modules;
};

class packed_format {
 public:
  packed_format() = default;
  packed_format(packed_format const&) = delete;
  packed_format& operator=(packed_format const&) = delete;
  virtual ~packed_format() = default;

  /// The value of `quantization_config.quant_method`.
  [[nodiscard]] virtual std::string_view method() const = 0;
  /// Whether matrices can be written in it. A format that is only read refuses `check`, `describe`, `emit` and `config`.
  [[nodiscard]] virtual bool writes() const { return true; }
  /// Throws `usage_error` when the format cannot carry `scheme` for a [rows, columns] matrix; names `module`.
  virtual void check(std::string const& module, index_t rows, index_t columns, packed_scheme const& scheme) const = 0;
  /// The tensors that replace `<module>.weight`.
  [[nodiscard]] virtual std::vector<tensor_description> describe(std::string const& module, index_t rows,
                                                                 index_t columns, packed_scheme const& scheme) const = 0;
  /// Hands out the bytes of those tensors, each once. w must have the scheme's bits, groups and scale type.
  virtual void emit(std::string const& module, quantized_view<> const& w, packed_scheme const& scheme,
                    tensor_sink const& sink) const = 0;
  /// Whether `from` holds `module` in this format.
  [[nodiscard]] virtual bool holds(checkpoint const& from, std::string const& module) const = 0;
  /// The matrix as a packed weight; codes stay in the mapping where the layout allows it. `from` must outlive the
  /// result unless `keep` holds it. Throws `input_error` when tensors, types or shapes do not fit [rows, columns].
  [[nodiscard]] virtual weight read(checkpoint const& from, std::string const& module, index_t rows, index_t columns,
                                    std::shared_ptr<void const> keep) const = 0;
  /// The scheme of a stored module.
  [[nodiscard]] virtual packed_scheme scheme_of(checkpoint const& from, std::string const& module, index_t rows,
                                                index_t columns) const = 0;
  /// The object for `quantization_config`. `ignore`: names of the linear modules that stay dense.
  [[nodiscard]] virtual ordered_json config(std::vector<scheme_group> const& groups,
                                            std::vector<std::string> const& ignore) const = 0;
};

namespace detail {

[[nodiscard]] constexpr dtype dtype_of_scales(scale_type type) {
  return type == scale_type::float16 ? dtype::float16 : (type == scale_type::bfloat16 ? dtype::bfloat16 : dtype::float32);
}
[[nodiscard]] constexpr index_t scheme_groups(packed_scheme const& scheme, index_t columns) {
  return scheme.group == 0 ? 1 : ceil_div(columns, scheme.group);
}

// Scales as the bytes of their storage type. w's scales hold only values of that type, so nothing is lost.
[[nodiscard]] inline std::vector<std::byte> stored_scales(matrix_view<float const> scales, scale_type type,
                                                          bool by_columns) {
  std::size_t const width = type == scale_type::float32 ? 4 : 2;
  std::vector<std::byte> bytes(static_cast<std::size_t>(scales.size()) * width);
  auto const flipped = by_columns ? transposed(scales) : scales;
  std::size_t at = 0;
  for (index_t i = 0; i < flipped.extent(0); ++i)
    for (index_t j = 0; j < flipped.extent(1); ++j, at += width) {
      float const value = flipped(i, j);
      if (type == scale_type::float32) {
        std::memcpy(bytes.data() + at, &value, 4);
      } else {
        std::uint16_t const raw = type == scale_type::float16 ? float16(value).bits : bfloat16(value).bits;
        std::memcpy(bytes.data() + at, &raw, 2);
      }
    }
  return bytes;
}

// group_size of quantization_config as AutoAWQ and GPTQ state it, 0 for none. One scale a row is a channel's, or a group's that is
// as wide as the matrix: this says which was meant.
[[nodiscard]] inline index_t stated_group_size(checkpoint const& from) {
  ordered_json const* const quantization = find_field(from.config(), "quantization_config");
  ordered_json const* const size = quantization != nullptr ? find_field(*quantization, "group_size") : nullptr;
  return size != nullptr && size->is_number_unsigned() ? size->get<index_t>() : 0;
}

[[nodiscard]] inline scale_type scale_type_of(checkpoint const& from, tensor_info const& tensor) {
  if (tensor.type == dtype::bfloat16) return scale_type::bfloat16;
  if (tensor.type == dtype::float16) return scale_type::float16;
  if (tensor.type == dtype::float32) return scale_type::float32;
  throw input_error(from.place(), "tensor '" + printable(tensor.name) + "': expected BF16, F16 or F32, found " +
                                      std::string(type_name_of(tensor)));
}

// A [n, m] tensor of scales as floats; NaN, Inf and negative scales are refused.
[[nodiscard]] inline matrix<float> loaded_scales(checkpoint const& from, tensor_info const& tensor) {
  matrix<float> out(tensor.shape[0], tensor.shape[1]);
  scale_type const type = scale_type_of(from, tensor);
  std::span<std::byte const> const bytes = from.bytes(tensor);
  for (index_t i = 0; i < out.view().size(); ++i) {
    float value = 0;
    if (type == scale_type::float32) {
      std::memcpy(&value, bytes.data() + 4 * i, 4);
    } else {
      std::uint16_t raw = 0;
      std::memcpy(&raw, bytes.data() + 2 * i, 2);
      value = type == scale_type::float16 ? static_cast<float>(float16::from_bits(raw))
                                          : static_cast<float>(bfloat16::from_bits(raw));
    }
    if (!std::isfinite(value))
      throw input_error(from.place(), "tensor '" + printable(tensor.name) + "': element " + std::to_string(i) +
                                          ": expected a finite scale");
    out.view().data[i] = value;
  }
  return out;
}

inline void require_shape(checkpoint const& from, tensor_info const& tensor, dtype type, index_t rows, index_t columns) {
  std::string const where = "tensor '" + printable(tensor.name) + "': ";
  if (type != dtype::unknown && tensor.type != type)
    throw input_error(from.place(), where + "expected " + std::string(dtype_name(type)) + ", found " +
                                        std::string(type_name_of(tensor)));
  std::vector<index_t> const expected{rows, columns};
  if (tensor.shape != expected) {
    std::string found = "[";
    for (index_t const extent : tensor.shape) found += (found.size() > 1 ? ", " : "") + std::to_string(extent);
    throw input_error(from.place(), where + "shape: expected [" + std::to_string(rows) + ", " +
                                        std::to_string(columns) + "], found " + found + "]");
  }
}

// Words of an I32 tensor in the mapping.
[[nodiscard]] inline matrix_view<std::uint32_t const> mapped_words(checkpoint const& from, tensor_info const& tensor) {
  auto const words = from.elements<std::int32_t>(tensor);
  return matrix_view<std::uint32_t const>(reinterpret_cast<std::uint32_t const*>(words.data()), tensor.shape[0],
                                          tensor.shape[1]);
}

// Everything that a packed weight owns beside the mapping.
struct packed_parts {
  matrix<std::uint32_t> words;
  matrix<float> scales;
  matrix<std::uint8_t> zeros;
  std::vector<std::int32_t> column_group;
  std::shared_ptr<void const> keep;
};

[[nodiscard]] inline weight packed_weight(std::shared_ptr<packed_parts> parts, quantized_view<> view) {
  view.scales = as_const(parts->scales.view());
  if (!parts->zeros.view().empty()) view.zeros = as_const(parts->zeros.view());
  if (!parts->column_group.empty()) view.column_group = parts->column_group.data();
  weight result;
  result.view = view;
  result.storage = std::move(parts);
  return result;
}

// Group of each column, checked against the number of groups.
[[nodiscard]] inline std::vector<std::int32_t> loaded_column_groups(checkpoint const& from, tensor_info const& tensor,
                                                                    index_t columns, index_t groups) {
  if (tensor.shape != std::vector<index_t>{columns})
    throw input_error(from.place(), "tensor '" + printable(tensor.name) + "': shape: expected [" +
                                        std::to_string(columns) + "]");
  auto order = from.load<std::int32_t>(tensor);
  for (std::int32_t const group : order)
    if (group < 0 || group >= groups)
      throw input_error(from.place(), "tensor '" + printable(tensor.name) + "': expected groups below " +
                                          std::to_string(groups) + ", found " + std::to_string(group));
  return order;
}

// Whether column_group is the natural one, c / group.
[[nodiscard]] inline bool natural_groups(std::vector<std::int32_t> const& order, index_t group) {
  for (std::size_t c = 0; c < order.size(); ++c)
    if (order[c] != static_cast<std::int32_t>(static_cast<index_t>(c) / group)) return false;
  return true;
}

}  // namespace detail

}  // namespace v0
}  // namespace slimtrim
