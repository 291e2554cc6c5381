// Coordinate descent after a greedy sweep: each code is chosen again with all others known, then each scale with all codes known.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/slim/column_sweep.hpp>
#include <slimtrim/slim/hessian.hpp>
#include <slimtrim/slim/quantize/quantized_matrix.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace detail {

// One pass over the columns of f(Q) = (Q - W) H (Q - W)ᵀ, scales fixed: q_j <- Q(q_j - ((Q - W) H)_j / H_jj), the grid point
// that minimises f with all other codes held; f never grows but for rounding in float.
// Q: [n, c], the present values, difference: Q - W, H: [c, c], all in sweep order; codes: [n, c] by column. Cost n c².
template <host_backend B>
void descend_codes(B const& backend, prepared_hessian const& prepared, quantized_matrix const& out, matrix_view<float> Q,
                   matrix_view<float> difference, std::uint8_t* codes) {
  constexpr index_t lanes = sweep_tile::lanes, block = 128;
  index_t const n = Q.extent(0), c = Q.extent(1);
  index_t const group_width = out.groups.block_columns(c), block_rows = out.groups.block_rows(n);
  auto const H = prepared.damped.view();
  matrix<float> gradient(n, std::min(block, c));
  for (index_t begin = 0; begin < c; begin += block) {
    index_t const width = std::min(block, c - begin);
    auto slopes = columns(gradient.view(), 0, width);
    backend.gemm(1.0F, as_const(difference), columns(H, begin, width), 0.0F, slopes);
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

// One pass over the groups, codes fixed: with Q_g a row's values in group g, s_g <- s_g (1 - Q_g ((Q - W) H)_gᵀ / Q_g H_gg Q_gᵀ), the
// least of f along s_g, rounded to the stored type; kept only where f falls. Arguments and cost as descend_codes; one scale a
// row and group.
template <host_backend B>
void descend_scales(B const& backend, prepared_hessian const& prepared, quantized_matrix& out, matrix_view<float> Q,
                    matrix_view<float> difference, std::uint8_t const* codes) {
  index_t const n = Q.extent(0), c = Q.extent(1), width = std::min(out.groups.block_columns(c), c), groups = out.groups.groups(c);
  auto const H = prepared.damped.view();
  std::vector<std::vector<index_t>> places(static_cast<std::size_t>(groups));  // of each group, in the sweep
  for (index_t j = 0; j < c; ++j) places[static_cast<std::size_t>(prepared.order[j] / width)].push_back(j);
  // A group that is the whole row lies in place already.
  bool const whole = groups == 1;
  index_t const copied = whole ? 0 : width;
  matrix<float> tall(copied > 0 ? c : 0, copied), square(copied, copied), values(copied > 0 ? n : 0, copied);
  matrix<float> slopes(n, width), curved(n, width);
  buffer<float> slope(n), curvature(n);
  for (index_t g = 0; g < groups; ++g) {
    std::vector<index_t> const& at = places[static_cast<std::size_t>(g)];
    index_t const m = static_cast<index_t>(at.size());
    auto const place = [&](index_t k) { return at[static_cast<std::size_t>(k)]; };
    matrix_view<float const> Hg = H, Hgg = H, V = as_const(Q);
    if (!whole) {
      for (index_t i = 0; i < c; ++i)
        for (index_t k = 0; k < m; ++k) tall(i, k) = H(i, place(k));
      for (index_t i = 0; i < m; ++i)
        for (index_t k = 0; k < m; ++k) square(i, k) = H(place(i), place(k));
      for (index_t r = 0; r < n; ++r)
        for (index_t k = 0; k < m; ++k) values(r, k) = Q(r, place(k));
      Hg = columns(as_const(tall.view()), 0, m);
      Hgg = columns(rows(as_const(square.view()), 0, m), 0, m);
      V = columns(as_const(values.view()), 0, m);
    }
    auto const S = columns(slopes.view(), 0, m), K = columns(curved.view(), 0, m);
    backend.gemm(1.0F, as_const(difference), Hg, 0.0F, S);
    backend.gemm(1.0F, V, Hgg, 0.0F, K);
    backend.row_dots(V, as_const(S), vector_view<float>(slope.data(), n));
    backend.row_dots(V, as_const(K), vector_view<float>(curvature.data(), n));
    for (index_t r = 0; r < n; ++r) {
      if (!(curvature[r] > 0) || !std::isfinite(curvature[r]) || !std::isfinite(slope[r])) continue;
      scale_and_zero next = out.at(r, g);
      double const before = static_cast<double>(next.scale), along = static_cast<double>(slope[r]), bend = static_cast<double>(curvature[r]);
      next.scale = round_scale(before * std::max(0.5, 1.0 - along / bend), out.scales_stored_as, out.grid.span_bits());
      double const step = static_cast<double>(next.scale) / before - 1.0;
      if (!(2.0 * step * along + step * step * bend < 0)) continue;
      out.set(r, g, next);
      for (index_t k = 0; k < m; ++k) {
        float const value = out.grid.decode(codes[r * c + prepared.order[place(k)]], next);
        difference(r, place(k)) += value - Q(r, place(k));
        Q(r, place(k)) = value;
      }
    }
  }
}

// `passes` times over the codes, and after each, unless rows share scales, over the scales. Q: [n, c] in sweep order, the present values, updated;
// codes: [n, c] by column, updated; so are the scales of `out`.
template <class T, host_backend B>
void descend(B const& backend, matrix_view<T const> W, prepared_hessian const& prepared, int passes, quantized_matrix& out,
             matrix_view<float> Q, std::uint8_t* codes) {
  constexpr index_t lanes = sweep_tile::lanes;
  index_t const n = Q.extent(0), c = Q.extent(1);
  matrix<float> difference(n, c);
  parallel_for(backend.run_on(), ceil_div(n, lanes), [&](index_t piece) {
    for (index_t r = piece * lanes; r < std::min(n, (piece + 1) * lanes); ++r)
      for (index_t j = 0; j < c; ++j) difference(r, j) = Q(r, j) - static_cast<float>(W(r, prepared.order[j]));
  });
  for (int pass = 0; pass < passes; ++pass) {
    descend_codes(backend, prepared, out, Q, difference.view(), codes);
    if (out.groups.kind != group_kind::tensor) descend_scales(backend, prepared, out, Q, difference.view(), codes);
  }
}

}  // namespace detail
}  // namespace v0
}  // namespace slimtrim
