// Coordinate descent over codes: after a greedy sweep, each code is chosen again with all others known.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/slim/column_sweep.hpp>
#include <slimtrim/slim/hessian.hpp>
#include <slimtrim/slim/quantize/quantized_matrix.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace detail {

// `passes` sweeps over the columns of the damped objective f(Q) = (Q - W) H (Q - W)ᵀ, scales fixed:
//   q_j <- Q(q_j - ((Q - W) H)_j / H_jj),
// the grid point that minimises f with all other codes held; f never grows but for rounding in float.
// Q: [n, c] in sweep order, the present values, updated; codes: [n, c] by column, updated. H in sweep order.
// Cost: n c^2 multiply-adds a pass, one product a block of 128 columns.
template <class T, host_backend B>
void descend(B const& backend, matrix_view<T const> W, prepared_hessian const& prepared, int passes,
             quantized_matrix const& out, matrix_view<float> Q, std::uint8_t* codes) {
  constexpr index_t lanes = sweep_tile::lanes, block = 128;
  index_t const n = Q.extent(0), c = Q.extent(1);
  index_t const group_width = out.groups.block_columns(c), block_rows = out.groups.block_rows(n);
  auto const H = prepared.damped.view();
  matrix<float> difference(n, c), gradient(n, std::min(block, c));
  parallel_for(backend.run_on(), ceil_div(n, lanes), [&](index_t piece) {
    for (index_t r = piece * lanes; r < std::min(n, (piece + 1) * lanes); ++r)
      for (index_t j = 0; j < c; ++j) difference(r, j) = Q(r, j) - static_cast<float>(W(r, prepared.order[j]));
  });
  for (int pass = 0; pass < passes; ++pass)
    for (index_t begin = 0; begin < c; begin += block) {
      index_t const width = std::min(block, c - begin);
      auto slopes = columns(gradient.view(), 0, width);
      backend.gemm(1.0F, as_const(difference.view()), columns(H, begin, width), 0.0F, slopes);
      parallel_for(backend.run_on(), ceil_div(n, lanes), [&](index_t piece) {
        index_t const first = piece * lanes, count = std::min(lanes, n - first);
        buffer<float> tile(width * lanes);
        for (index_t k = 0; k < width; ++k)
          for (index_t l = 0; l < lanes; ++l) tile[k * lanes + l] = l < count ? slopes(first + l, k) : 0.0F;
        for (index_t k = 0; k < width; ++k) {
          index_t const j = begin + k, column = prepared.order[j], group = column / group_width;
          float const curvature = H(j, j);
          float step[lanes] = {};
          bool moved = false;
          for (index_t l = 0; l < count; ++l) {
            index_t const r = first + l;
            scale_and_zero const at = out.at(r / block_rows, group);
            float const present = Q(r, j);
            std::uint32_t const code = out.grid.encode(present - tile[k * lanes + l] / curvature, at);
            if (code == codes[r * c + column]) continue;
            float const next = out.grid.decode(code, at);
            codes[r * c + column] = static_cast<std::uint8_t>(code);
            step[l] = next - present;
            Q(r, j) = next;
            difference(r, j) += step[l];
            moved = true;
          }
          if (!moved) continue;
          for (index_t next = k + 1; next < width; ++next) {
            float const factor = H(j, begin + next);
            float* const slope = tile.data() + next * lanes;
            for (index_t l = 0; l < lanes; ++l) slope[l] += step[l] * factor;
          }
        }
      });
    }
}

}  // namespace detail
}  // namespace v0
}  // namespace slimtrim
