// One matrix through its slim steps: f(W).
#pragma once

#include <slimtrim/linalg/weight.hpp>
#include <slimtrim/pipeline/output_modules.hpp>
#include <slimtrim/slim/quantize/quantized_matrix.hpp>
#include <slimtrim/slim/quantize/rtn.hpp>

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What the steps made of a matrix: packed codes, or dense values.
struct slim_result {
  std::optional<quantized_matrix> packed{};
  std::optional<tensor<float, 2>> dense{};
};

/// The options of a uniform quantiser for a scheme.
[[nodiscard]] inline quantize_options quantizer_of(packed_scheme const& scheme, scale_rule scale) {
  quantize_options options;
  options.grid = {.bits = scheme.bits, .symmetric = !scheme.zero_points};
  options.groups.kind = scheme.group == 0 ? group_kind::channel : group_kind::group;
  if (scheme.group != 0) options.groups.size = scheme.group;
  options.scale = scale;
  options.scales_stored_as = scheme.scales;
  return options;
}

/// Runs the steps of `m` that need the weights alone on W: [rows, columns] of any kind. Throws as the methods do.
template <host_backend B>
[[nodiscard]] slim_result slim_matrix(B const& backend, weight_view const& W, slimmed_module const& m) {
  slim_result result;
  for (step const& s : m.steps) {
    if (s.method != method::rtn)
      throw usage_error(std::string(to_string(s.method)) + ": works on calibration tokens: give --data");
    quantize_options const options = quantizer_of(*m.scheme, s.quantization.scale);
    // The storage types are quantised in place; nothing else is read without a copy.
    if (auto const* w = std::get_if<matrix_view<bfloat16 const>>(&W)) {
      result.packed = rtn(backend, *w, options);
    } else if (auto const* h = std::get_if<matrix_view<float16 const>>(&W)) {
      result.packed = rtn(backend, *h, options);
    } else {
      tensor<float, 2> const dense = expand(W);
      result.packed = rtn(backend, dense.view(), options);
    }
  }
  return result;
}

namespace detail {

// Dense floats as the bytes of a storage type.
[[nodiscard]] inline std::vector<std::byte> narrowed(matrix_view<float const> values, dtype type) {
  std::size_t const width = dtype_bits(type) / 8;
  std::vector<std::byte> bytes(static_cast<std::size_t>(values.size()) * width);
  std::size_t at = 0;
  for (index_t i = 0; i < values.extent(0); ++i)
    for (index_t j = 0; j < values.extent(1); ++j, at += width) {
      float const value = values(i, j);
      if (type == dtype::float32) {
        std::memcpy(bytes.data() + at, &value, 4);
      } else {
        std::uint16_t const raw = type == dtype::float16 ? float16(value).bits : bfloat16(value).bits;
        std::memcpy(bytes.data() + at, &raw, 2);
      }
    }
  return bytes;
}

}  // namespace detail

/// Hands the tensors of a slimmed module to `sink`.
inline void emit_slimmed(packed_format const* format, slimmed_module const& m, slim_result const& result,
                         tensor_sink const& sink) {
  if (m.scheme) {
    format->emit(m.stem, result.packed->view(), *m.scheme, sink);
  } else {
    sink(m.dense.name, detail::narrowed(result.dense->view(), m.dense.type));
  }
}

/// One line of the report about a slimmed module.
[[nodiscard]] inline ordered_json slimmed_summary(slimmed_module const& m, slim_result const& result) {
  ordered_json line{{"module", m.stem}};
  std::string methods;
  for (step const& s : m.steps) methods += (methods.empty() ? "" : "+") + short_form(s);
  line["method"] = methods;
  if (result.packed) line["bytes"] = result.packed->bytes();
  return line;
}

}  // namespace v0
}  // namespace slimtrim
