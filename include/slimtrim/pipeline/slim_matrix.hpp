// One matrix through its slim steps: f(W).
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/linalg/weight.hpp>
#include <slimtrim/pipeline/output_modules.hpp>
#include <slimtrim/slim/hessian.hpp>
#include <slimtrim/slim/quantize/awq.hpp>
#include <slimtrim/slim/quantize/gptq.hpp>
#include <slimtrim/slim/quantize/quantized_matrix.hpp>
#include <slimtrim/slim/quantize/rtn.hpp>
#include <slimtrim/slim/sparse/magnitude.hpp>
#include <slimtrim/slim/sparse/sparsegpt.hpp>
#include <slimtrim/slim/sparse/wanda.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What the calibration tokens say about the inputs of a matrix.
struct input_moments {
  matrix<float> hessian{};  ///< sum of x xᵀ over the tokens that this matrix saw: [columns, columns]
  double tokens = 0;
  double weight = 0;        ///< sum of the squared weights of the tokens, where they have some; 0: tokens
  /// The same over all tokens of the layer, for experts that saw few; null where there is no wider circle.
  matrix<float> const* pooled = nullptr;
  double pooled_tokens = 0;
};

/// What the steps made of a matrix, and what is worth telling about it.
struct slim_result {
  std::shared_ptr<quantized_matrix const> packed{};  ///< codes, or
  std::shared_ptr<tensor<float, 2> const> dense{};   ///< values that the storage type holds exactly
  std::shared_ptr<mask const> kept{};                ///< which weights pruning kept; null without pruning
  ordered_json report = ordered_json::object();
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

namespace detail {

[[nodiscard]] constexpr std::string_view hessian_source_name(hessian_source source) {
  switch (source) {
    case hessian_source::own: return "own";
    case hessian_source::pooled: return "pooled";
    case hessian_source::diagonal: return "diagonal";
    default: return "none";
  }
}

// Values rounded to the storage type, as floats.
inline void round_to_storage(matrix_view<float> values, dtype type) {
  if (type == dtype::float32) return;
  for (index_t i = 0; i < values.extent(0); ++i)
    for (index_t j = 0; j < values.extent(1); ++j)
      values(i, j) = type == dtype::float16 ? static_cast<float>(float16(values(i, j)))
                                            : static_cast<float>(bfloat16(values(i, j)));
}

// The Hessian that steers a method: the matrix's own, or shrunk where it saw few tokens.
template <host_backend B>
hessian_source settle_hessian(B const& backend, input_moments& moments) {
  matrix_view<float const> const pooled =
      moments.pooled != nullptr ? moments.pooled->view() : matrix_view<float const>();
  return shrink_hessian(backend, moments.hessian.view(), moments.tokens, pooled, moments.pooled_tokens, {}, moments.weight);
}

[[nodiscard]] inline sparsity sparsity_of(sparsity_step const& s) {
  sparsity pattern;
  pattern.rate = s.fraction;
  pattern.keep = s.n;
  pattern.of = s.m;
  return pattern;
}

template <host_backend B>
[[nodiscard]] quantized_matrix quantise_with_moments(B const& backend, matrix_view<float const> W, step const& s,
                                                     packed_scheme const& scheme, input_moments& moments,
                                                     ordered_json& report) {
  gptq_options options;
  quantize_options const plain = quantizer_of(scheme, s.quantization.scale);
  options.grid = plain.grid;
  options.groups = plain.groups;
  options.scale = plain.scale;
  options.scales_stored_as = plain.scales_stored_as;
  options.order = s.quantization.order;
  options.descent_passes = s.quantization.descent;
  matrix<float> const own = moments.hessian.clone();
  hessian_source const source = settle_hessian(backend, moments);
  gptq_result result = gptq(backend, W, as_const(moments.hessian.view()), options, own.view());
  report["tokens"] = moments.tokens;
  report["hessian"] = hessian_source_name(source);
  report["fallback"] = !result.report.second_order;
  report["damp"] = result.report.damp;
  report["dead_columns"] = result.report.dead_columns;
  report["rows_kept_rtn"] = result.report.rows_kept_rtn;
  report["error_rtn"] = result.report.error_rtn;
  report["error"] = result.report.error;
  return std::move(result.matrix);
}

}  // namespace detail

/// Runs the steps of `m` on W: [rows, columns] of any kind. `moments`: null when no step works on tokens; its Hessian
/// may be shrunk in place. Dense results are rounded to the storage type of the output. Throws as the methods do.
template <host_backend B>
[[nodiscard]] slim_result slim_matrix(B const& backend, weight_view const& W, slimmed_module const& m,
                                      input_moments* moments = nullptr) {
  slim_result result;
  bool const only_rtn = m.steps.size() == 1 && m.steps.front().method == method::rtn;
  if (only_rtn) {
    quantize_options const options = quantizer_of(*m.scheme, m.steps.front().quantization.scale);
    // The 16-bit storage types are quantised where they lie; nothing else is read without a copy.
    if (auto const* w = std::get_if<matrix_view<bfloat16 const>>(&W)) {
      result.packed = std::make_shared<quantized_matrix>(rtn(backend, *w, options));
      return result;
    }
    if (auto const* w = std::get_if<matrix_view<float16 const>>(&W)) {
      result.packed = std::make_shared<quantized_matrix>(rtn(backend, *w, options));
      return result;
    }
  }
  auto values = std::make_shared<tensor<float, 2>>(expand(W));
  std::optional<mask> kept;
  std::optional<tensor<float, 2>> unpruned;  // what a sweep behind the choice of a mask starts from
  auto const prune = [&](mask chosen, std::size_t place) {
    bool const swept = std::any_of(m.steps.begin() + static_cast<std::ptrdiff_t>(place), m.steps.end(),
                                   [](step const& later) { return later.method == method::gptq; });
    if (swept && !unpruned) unpruned = values->clone();
    kept = std::move(chosen);
    apply(kept->view(), values->view());
  };
  // The Hessian that steers, made once whatever the number of steps that it steers.
  bool settled = false;
  auto const settle = [&] {
    if (std::exchange(settled, true)) return;
    hessian_source const source = detail::settle_hessian(backend, *moments);
    result.report["tokens"] = moments->tokens;
    result.report["hessian"] = detail::hessian_source_name(source);
  };
  for (std::size_t k = 0; k < m.steps.size(); ++k) {
    step const& s = m.steps[k];
    if (s.method == method::recover) continue;
    if (result.packed) throw usage_error(short_form(s) + ": " + m.stem + " is packed already by an earlier step");
    if (needs_data(s) && moments == nullptr)
      throw usage_error(std::string(to_string(s.method)) + ": works on calibration tokens: give --data");
    switch (s.method) {
      case method::rtn:
        result.packed = std::make_shared<quantized_matrix>(
            rtn(backend, values->view(), quantizer_of(*m.scheme, s.quantization.scale)));
        break;
      case method::gptq:
        if (kept) {
          // What was pruned stays pruned: the sweep makes up for it, and for the rounding of the rest.
          settle();
          sparsegpt_options options;
          options.quantize = quantizer_of(*m.scheme, s.quantization.scale);
          options.given = &*kept;
          sparsegpt_result swept = sparsegpt(backend, unpruned ? unpruned->view() : values->view(), as_const(moments->hessian.view()), options);
          result.report["error"] = swept.report.error;
          result.report["fallback"] = !swept.report.second_order;
          result.packed = std::make_shared<quantized_matrix>(std::move(*swept.quantized));
          break;
        }
        result.packed = std::make_shared<quantized_matrix>(
            detail::quantise_with_moments(backend, as_const(values->view()), s, *m.scheme, *moments, result.report));
        break;
      case method::awq: {
        // Before gptq only its scales count, and the layer has them by now.
        if (k + 1 < m.steps.size() && m.steps[k + 1].method == method::gptq) break;
        matrix<float> const own = moments->hessian.clone();
        settle();
        quantize_options const plain = quantizer_of(*m.scheme, s.quantization.scale);
        awq_options options;
        options.grid = plain.grid;
        options.groups = plain.groups;
        options.scales_stored_as = plain.scales_stored_as;
        index_t rows_kept = 0;
        result.packed = std::make_shared<quantized_matrix>(
            awq(backend, values->view(), as_const(moments->hessian.view()), {}, options, as_const(own.view()), &rows_kept));
        result.report["rows_kept_rtn"] = rows_kept;
        break;
      }
      case method::magnitude:
        prune(magnitude_mask(backend, values->view(), detail::sparsity_of(s.sparsity)), k + 1);
        break;
      case method::wanda: {
        settle();
        prune(wanda_mask(backend, values->view(), diagonal(as_const(moments->hessian.view())), detail::sparsity_of(s.sparsity)), k + 1);
        break;
      }
      case method::sparsegpt: {
        settle();
        sparsegpt_options options;
        options.pattern = detail::sparsity_of(s.sparsity);
        // A quantiser right behind it works in the same sweep: what rounding costs, later columns absorb, and zeros stay.
        bool const joint = k + 1 < m.steps.size() && (m.steps[k + 1].method == method::gptq || m.steps[k + 1].method == method::rtn);
        if (joint) options.quantize = quantizer_of(*m.scheme, m.steps[k + 1].quantization.scale);
        sparsegpt_result pruned = sparsegpt(backend, values->view(), as_const(moments->hessian.view()), options);
        result.report["error"] = pruned.report.error;
        result.report["fallback"] = !pruned.report.second_order;
        kept = std::move(pruned.kept);
        if (pruned.quantized) {
          result.packed = std::make_shared<quantized_matrix>(std::move(*pruned.quantized));
          k = m.steps.size();
        } else {
          *values = std::move(pruned.weight);
        }
        break;
      }
      default: throw usage_error(std::string(to_string(s.method)) + ": not a step on one matrix");
    }
  }
  if (kept) {
    double const all = static_cast<double>(m.rows) * static_cast<double>(m.columns);
    result.kept = std::make_shared<mask>(std::move(*kept));
    result.report["zeros"] = all > 0 ? 1.0 - static_cast<double>(popcount(result.kept->view())) / all : 0.0;
  }
  if (!result.packed) {
    detail::round_to_storage(values->view(), m.dense.type);
    result.dense = std::move(values);
  }
  return result;
}

/// The result as a weight for the forward pass.
[[nodiscard]] inline weight slimmed_weight(slim_result const& result) {
  weight w;
  if (result.packed) {
    w.view = result.packed->view();
    w.storage = result.packed;
  } else {
    w.view = result.dense->view();
    w.storage = result.dense;
  }
  return w;
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

/// Hands the tensors of a slimmed module to `sink`. Throws `error` when it is packed and there is no format.
inline void emit_slimmed(packed_format const* format, slimmed_module const& m, slim_result const& result,
                         tensor_sink const& sink) {
  if (m.scheme) {
    expects(format != nullptr, "emit_slimmed", "format: expected one for a packed module");
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
  line.update(result.report);
  return line;
}

}  // namespace v0
}  // namespace slimtrim
