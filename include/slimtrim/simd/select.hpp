// N of every M weights by Wanda's score at the speed of memory: what slimtrim::wanda_mask does for the commonest
// patterns.
#pragma once

#include <slimtrim/core/executor.hpp>
#include <slimtrim/simd/interleaved_weight.hpp>
#include <slimtrim/simd/kernel_table.hpp>
#include <slimtrim/slim/sparse/wanda.hpp>

#include <algorithm>
#include <atomic>

namespace slimtrim {
inline namespace v0 {
namespace simd {

/// Whether `wanda_mask` below covers this pattern and matrix: 4 or 8 weights a group, contiguous rows of whole words of
/// a mask.
template <class T>
[[nodiscard]] bool covers_selection(kernel_table const& kernels, matrix_view<T const> W, sparsity const& pattern) {
  return (pattern.of == 4 || pattern.of == 8) && pattern.of <= kernels.most_of_group && W.stride(1) == 1 &&
         W.extent(1) % 64 == 0;
}

/// slimtrim::wanda_mask, bit for bit, where covers_selection. Deterministic for any executor. Throws as it does.
template <class T>
[[nodiscard]] mask wanda_mask(kernel_table const& kernels, executor* run_on, matrix_view<T const> W,
                              vector_view<float const> second_moments, sparsity const& pattern) {
  index_t const rows = W.extent(0), columns = W.extent(1);
  buffer<float> const norms = slimtrim::detail::scoring_norms(second_moments);
  mask out(rows, columns);
  std::atomic<bool> finite{true};
  constexpr index_t rows_a_piece = 16;
  parallel_for(run_on, columns > 0 ? ceil_div(rows, rows_a_piece) : 0, [&](index_t piece) {
    index_t const last = std::min(rows, (piece + 1) * rows_a_piece);
    for (index_t r = piece * rows_a_piece; r < last; ++r)
      if (kernels.keep_in_groups(detail::kind_of_dense<T>, W.data + r * W.stride(0), norms.data(), columns, pattern.of,
                                 pattern.keep, &out.word(r, 0)) >= 0x7f800000U)
        finite = false;
  });
  if (!finite) slimtrim::detail::name_non_finite<T>(W, "wanda_mask");
  return out;
}

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
