// Round to nearest in 4 bits at the speed of memory: what slimtrim::rtn does for the commonest options, a row at a
// time.
#pragma once

#include <slimtrim/core/executor.hpp>
#include <slimtrim/simd/interleaved_weight.hpp>
#include <slimtrim/simd/kernel_table.hpp>
#include <slimtrim/slim/quantize/rtn.hpp>

#include <algorithm>
#include <atomic>

namespace slimtrim {
inline namespace v0 {
namespace simd {

/// Whether `rtn` below covers these options and this matrix: symmetric 4-bit absmax groups of whole blocks of 32
/// columns in contiguous rows.
template <class T>
[[nodiscard]] bool covers_rtn(matrix_view<T const> W, quantize_options const& options) {
  index_t const group = options.groups.block_columns(W.extent(1));
  return options.grid.bits == 4 && options.grid.symmetric && options.scale == scale_rule::absmax &&
         options.groups.kind != group_kind::tensor && W.stride(1) == 1 && W.extent(1) % block_columns == 0 &&
         group % block_columns == 0;
}

/// slimtrim::rtn_into, byte for byte, where covers_rtn. Deterministic for any executor. Throws as it does.
template <class T>
void rtn_into(kernel_table const& kernels, executor* run_on, matrix_view<T const> W, quantize_options const& options,
              quantized_matrix& out) {
  index_t const rows = W.extent(0), columns = W.extent(1);
  out.reshape(rows, columns, options.grid, options.groups, options.scales_stored_as);
  index_t const group = options.groups.block_columns(columns);
  index_t const groups = out.scales.extent(1);
  std::atomic<bool> finite{true};
  constexpr index_t rows_a_piece = 16;
  parallel_for(run_on, ceil_div(rows, rows_a_piece), [&](index_t piece) {
    buffer<std::uint32_t> largest(groups);
    index_t const last = std::min(rows, (piece + 1) * rows_a_piece);
    for (index_t r = piece * rows_a_piece; r < last; ++r) {
      T const* const row = W.data + r * W.stride(0);
      kernels.group_magnitudes(detail::kind_of_dense<T>, row, columns, group, largest.data());
      for (index_t g = 0; g < groups; ++g) {
        if (largest[g] >= 0x7f800000U) {
          finite = false;
          return;
        }
        out.set(r, g, options.grid.from_range(0.0F, bits_as<float>(largest[g]), options.scales_stored_as));
      }
      kernels.encode4(detail::kind_of_dense<T>, row, columns, group, groups > 0 ? &out.scales(r, 0) : nullptr,
                      out.words.view().data + r * out.words.extent(1));
    }
  });
  if (!finite) slimtrim::detail::name_non_finite<T>(W, "rtn");
}

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
