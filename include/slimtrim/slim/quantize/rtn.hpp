// Round to nearest: every weight to the nearest value of its group's grid, no data needed.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/core/executor.hpp>
#include <slimtrim/slim/quantize/group.hpp>
#include <slimtrim/slim/quantize/quantized_matrix.hpp>
#include <slimtrim/slim/quantize/scale_search.hpp>
#include <slimtrim/tensor/adapt.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What a quantiser is to produce.
struct quantize_options {
  uniform_grid grid{};
  grouping groups{};
  scale_rule scale = scale_rule::absmax;
  scale_type scales_stored_as = scale_type::bfloat16;
  scale_search search{};
};

namespace detail {

// One row of any view as floats side by side.
template <class T>
void gather_row(vector_view<T const> row, float* out) {
  index_t const n = row.extent(0);
  if (row.stride(0) == 1) {
    for (index_t i = 0; i < n; ++i) out[i] = static_cast<float>(row.data[i]);
  } else {
    for (index_t i = 0; i < n; ++i) out[i] = static_cast<float>(row(i));
  }
}

// Throws input_error that names the first NaN or Inf of W, if there is one.
template <class T>
void name_non_finite(matrix_view<T const> W, char const* where) {
  for (index_t r = 0; r < W.extent(0); ++r)
    for (index_t c = 0; c < W.extent(1); ++c) {
      float const value = static_cast<float>(W(r, c));
      if (std::isfinite(value)) continue;
      throw input_error(std::string(where) + ": W[" + std::to_string(r) + ", " + std::to_string(c) +
                        "]: expected a finite value, found " + (std::isnan(value) ? "NaN" : "Inf"));
    }
}

inline constexpr index_t rows_a_quantize_piece = 16;

// use(i) for every row, in pieces of a fixed number of rows.
template <class Use>
void for_rows(executor* run_on, index_t rows, Use&& use) {
  parallel_for(run_on, ceil_div(rows, rows_a_quantize_piece), [&](index_t piece) {
    index_t const last = std::min(rows, (piece + 1) * rows_a_quantize_piece);
    for (index_t i = piece * rows_a_quantize_piece; i < last; ++i) use(i);
  });
}

// Scale and, where `codes` is given, the codes of one row of floats; false when it holds a value that is not finite.
inline bool quantize_row(float const* values, index_t r, quantize_options const& options, float const* column_weights,
                         quantized_matrix& out, std::uint8_t* codes) {
  index_t const columns = out.columns, width = out.groups.block_columns(columns);
  for (index_t g = 0, c = 0; c < columns; ++g, c += width) {
    index_t const n = std::min(width, columns - c);
    std::uint32_t const magnitude = largest_magnitude_bits(values + c, n);
    if (magnitude >= 0x7f800000U) return false;
    scale_and_zero const at = options.scale == scale_rule::absmax && options.grid.symmetric
                                  ? options.grid.from_range(0.0F, bits_as<float>(magnitude), options.scales_stored_as)
                                  : fit_scale(options.grid, values + c, n, options.scales_stored_as, options.scale,
                                              column_weights != nullptr ? column_weights + c : nullptr, options.search);
    out.set(r, g, at);
    if (codes != nullptr) encode_run(out.grid, values + c, n, at, codes + c);
  }
  if (codes != nullptr) out.set_row(r, codes);
  return true;
}

// The one scale of a whole matrix; false when it holds a value that is not finite.
template <class T>
bool fit_tensor_scale(matrix_view<T const> W, quantize_options const& options, float const* column_weights,
                      quantized_matrix& out) {
  index_t const columns = W.extent(1);
  std::vector<float> all(static_cast<std::size_t>(W.size())), weights;
  for (index_t r = 0; r < W.extent(0); ++r) gather_row<T>(row(W, r), all.data() + r * columns);
  if (largest_magnitude_bits(all.data(), W.size()) >= 0x7f800000U) return false;
  if (column_weights != nullptr)
    for (index_t r = 0; r < W.extent(0); ++r) weights.insert(weights.end(), column_weights, column_weights + columns);
  if (W.size() > 0)
    out.set(0, 0,
            fit_scale(options.grid, all.data(), W.size(), options.scales_stored_as, options.scale,
                      column_weights != nullptr ? weights.data() : nullptr, options.search));
  return true;
}

// Scales of every block of W from the weights alone, and the codes too when `with_codes`.
// column_weights: [columns] or null. Returns false when W holds a value that is not finite.
template <class T>
bool quantize_rows(executor* run_on, matrix_view<T const> W, quantize_options const& options,
                   float const* column_weights, bool with_codes, quantized_matrix& out) {
  bool const one_scale = out.groups.kind == group_kind::tensor;
  if (one_scale && !fit_tensor_scale<T>(W, options, column_weights, out)) return false;
  if (one_scale && !with_codes) return true;
  index_t const pieces = ceil_div(W.extent(0), rows_a_quantize_piece);
  std::vector<char> finite(static_cast<std::size_t>(pieces), 1);
  parallel_for(run_on, pieces, [&](index_t piece) {
    buffer<float> values(W.extent(1));
    buffer<std::uint8_t> codes(with_codes ? W.extent(1) : 0);
    index_t const last = std::min(W.extent(0), (piece + 1) * rows_a_quantize_piece);
    for (index_t r = piece * rows_a_quantize_piece; r < last; ++r) {
      gather_row<T>(row(W, r), values.data());
      if (one_scale) {
        encode_run(out.grid, values.data(), W.extent(1), out.at(0, 0), codes.data());
        out.set_row(r, codes.data());
      } else if (!quantize_row(values.data(), r, options, column_weights, out, with_codes ? codes.data() : nullptr)) {
        finite[static_cast<std::size_t>(piece)] = 0;
        return;
      }
    }
  });
  return std::find(finite.begin(), finite.end(), 0) == finite.end();
}

}  // namespace detail

/// Round-to-nearest group quantisation: code = round(clamp(w / scale + zero)), scales by `options.scale`.
///
/// W: [out, in], float, bfloat16 or float16 in any layout. column_weights: [in] or empty, used by scale_rule::weighted.
/// Scales are rounded to `options.scales_stored_as` before codes are chosen. Decoded error of a value inside the range:
/// at most half a step, plus for the symmetric grid the half step above the largest code and the rounding of the scale.
/// `out` keeps the memory that has the right shape already: who quantises matrix after matrix pays for no page of fresh
/// memory. Throws `input_error` naming the first NaN or Inf (`out` then holds no result), `error` for bits outside 1
/// to 8. Byte-identical for any executor. Cost O(out * in); scratch one row a thread.
template <host_backend B, matrix_like M>
void rtn_into(B const& backend, M&& weight, quantize_options const& options, quantized_matrix& out,
              vector_view<float const> column_weights = {}) {
  auto const W = as_const_matrix(weight);
  using T = typename std::remove_cvref_t<decltype(W)>::value_type;
  if (column_weights.data != nullptr) expects_equal(column_weights.extent(0), W.extent(1), "rtn", "column weights");
  if constexpr (requires { backend.rtn_into(W, options, out, column_weights); }) {
    backend.rtn_into(W, options, out, column_weights);
  } else {
    out.reshape(W.extent(0), W.extent(1), options.grid, options.groups, options.scales_stored_as);
    bool const weighted = options.scale == scale_rule::weighted && column_weights.data != nullptr;
    if (!detail::quantize_rows<T>(backend.run_on(), W, options, weighted ? column_weights.data : nullptr, true, out))
      detail::name_non_finite<T>(W, "rtn");
  }
}

/// rtn_into a matrix of its own.
template <host_backend B, matrix_like M>
[[nodiscard]] quantized_matrix rtn(B const& backend, M&& weight, quantize_options const& options = {},
                                   vector_view<float const> column_weights = {}) {
  quantized_matrix out;
  rtn_into(backend, weight, options, out, column_weights);
  return out;
}

/// W rounded to any grid and back, in float: `out[r, c] = Q(W[r, c])`, out: [out, in]. For grids without integer codes
/// (FP8, MXFP4) and for comparing grids. Scales by the range of each group.
template <host_backend B, matrix_like M, grid G>
void round_to_grid(B const& backend, M&& weight, G const& code_grid, grouping groups, scale_type stored_as,
                   matrix_view<float> out) {
  auto const W = as_const_matrix(weight);
  using T = typename std::remove_cvref_t<decltype(W)>::value_type;
  groups.check();
  detail::name_non_finite<T>(W, "round_to_grid");
  expects_equal(out.extent(0), W.extent(0), "round_to_grid", "rows");
  expects_equal(out.extent(1), W.extent(1), "round_to_grid", "columns");
  index_t const columns = W.extent(1), width = groups.block_columns(columns), tall = groups.block_rows(W.extent(0));
  parallel_for(backend.run_on(), ceil_div(W.extent(0), tall), [&](index_t block) {
    index_t const first = block * tall, last = std::min(W.extent(0), first + tall);
    for (index_t c = 0; c < columns; c += width) {
      index_t const end = std::min(columns, c + width);
      detail::value_range range;
      for (index_t r = first; r < last; ++r)
        for (index_t k = c; k < end; ++k) {
          float const value = static_cast<float>(W(r, k));
          range.lowest = std::min(range.lowest, value);
          range.highest = std::max(range.highest, value);
        }
      scale_and_zero const at = code_grid.from_range(range.lowest, range.highest, stored_as);
      for (index_t r = first; r < last; ++r)
        for (index_t k = c; k < end; ++k)
          out(r, k) = code_grid.decode(code_grid.encode(static_cast<float>(W(r, k)), at), at);
    }
  });
}

}  // namespace v0
}  // namespace slimtrim
