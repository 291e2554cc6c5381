// Cosines of pairs of rows in one pass over both matrices.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/similarity/cosine.hpp>
#include <slimtrim/simd/interleaved_weight.hpp>
#include <slimtrim/simd/kernel_table.hpp>

#include <algorithm>
#include <cmath>

namespace slimtrim {
inline namespace v0 {
namespace simd {

/// out_i = cos(X_i, Y_i) as slimtrim::row_cosines gives it: sums in float within 4096 columns, in double across.
///
/// X, Y: [n, m] of float, bfloat16 or float16; out: [n]. Rows that are not contiguous, whose squared norm leaves
/// 1e-28 .. 1e28, or that hold NaN or infinity, take (and are reported by) the path of `fallback`, a backend without
/// this member. Pieces of 64 rows; the same for any executor.
template <class Backend, class T>
void row_cosines(kernel_table const& kernels, Backend const& fallback, matrix_view<T const> X, matrix_view<T const> Y,
                 vector_view<float> out) {
  constexpr index_t rows_a_piece = 64;
  bool const contiguous = X.extent(1) <= 1 || (X.stride(1) == 1 && Y.stride(1) == 1);
  parallel_for(fallback.run_on(), ceil_div(X.extent(0), rows_a_piece), [&](index_t piece) {
    index_t const last = std::min(X.extent(0), (piece + 1) * rows_a_piece);
    for (index_t i = piece * rows_a_piece; i < last; ++i) {
      double sums[3] = {};
      if (contiguous)
        kernels.cosine_sums(detail::kind_of_dense<T>, X.data + i * X.stride(0), Y.data + i * Y.stride(0), X.extent(1),
                            sums);
      bool const safe = slimtrim::detail::safe_square<float>(sums[1]) && slimtrim::detail::safe_square<float>(sums[2]);
      double const cosine =
          safe ? slimtrim::detail::clamped_cosine(sums[0], std::sqrt(sums[1]), std::sqrt(sums[2]))
               : static_cast<double>(slimtrim::detail::cosine<Backend, T, space::host>(fallback, row(X, i), row(Y, i)));
      out(i) = static_cast<float>(cosine);
    }
  });
}

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
