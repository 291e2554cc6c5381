// The experts of a layer for many tokens each on sm_90a: the grouped products of moe_many.cuh by wgmma, 128 pairs at a
// time.
#pragma once

#include <slimtrim/cuda/moe_many.cuh>
#include <slimtrim/cuda/moe_view.cuh>
#include <slimtrim/cuda/warpgroup_tokens.cuh>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// Grid: tile of pairs, 256 rows of gate and up. X: [T, hidden] in steps' order; so is what is written.
template <half_precision T, tile_kind Kind>
__global__ void __launch_bounds__(warpgroup_shape::threads, 1)
    moe_warpgroup_gate_up(moe_layer_view<T> layer, T const* X, expert_groups groups, T* activations) {
  token_tile const mine =
      tile_of_tokens(groups.offsets, static_cast<int>(layer.experts), warpgroup_tokens, static_cast<int>(blockIdx.x));
  if (mine.expert < 0) return;
  tile_weight_view const w = layer.gate_up[mine.expert];
  int const slots = static_cast<int>(layer.rule.top_k), lane = static_cast<int>(threadIdx.x % 32);
  T const* rows[fetched_tokens];
  rows_to_fetch_swizzled<T>(mine.count, rows,
                            [&](int i) { return X + groups.pairs[mine.first + i] / slots * layer.hidden; });
  float sums[2][warpgroup_tokens / 8][4] = {};
  index_t const first_strip = first_strip_of_warp<2>(blockIdx.y);
  multiply_warpgroups<T, Kind, 2>(w, first_strip, 0, static_cast<int>(w.blocks()), rows, sums);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    index_t const strip = first_strip + 4 * r;
    if (strip >= w.strips()) continue;
#pragma unroll
    for (int n = 0; n < warpgroup_tokens / 8; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        // Registers 0 and 1 of a lane are gate rows, 2 and 3 the same rows of up.
        tile_position const at = result_element(lane, e);
        int const token = n * tile::tokens + at.column;
        if (token < mine.count)
          activations[(mine.first + token) * layer.width + place_for_warpgroups(strip * 8 + at.row)] =
              T(gated(sums[r][n][e], sums[r][n][e + 2]));
      }
  }
}

// Grid: tile of pairs, 256 rows of down.
template <half_precision T, tile_kind Kind>
__global__ void __launch_bounds__(warpgroup_shape::threads, 1)
    moe_warpgroup_down(moe_layer_view<T> layer, T const* activations, float const* factors, expert_groups groups,
                       float* routed) {
  token_tile const mine =
      tile_of_tokens(groups.offsets, static_cast<int>(layer.experts), warpgroup_tokens, static_cast<int>(blockIdx.x));
  if (mine.expert < 0) return;
  tile_weight_view const w = layer.down[mine.expert];
  int const lane = static_cast<int>(threadIdx.x % 32);
  T const* rows[fetched_tokens];
  rows_to_fetch_swizzled<T>(mine.count, rows, [&](int i) { return activations + (mine.first + i) * layer.width; });
  float sums[2][warpgroup_tokens / 8][4] = {};
  index_t const first_strip = first_strip_of_warp<2>(blockIdx.y);
  multiply_warpgroups<T, Kind, 2>(w, first_strip, 0, static_cast<int>(w.blocks()), rows, sums);
#pragma unroll
  for (int n = 0; n < warpgroup_tokens / 8; ++n)
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      int const token = n * tile::tokens + result_element(lane, upper).column;
      if (token >= mine.count) continue;
      float const factor = factors[groups.pairs[mine.first + token]];
#pragma unroll
      for (int r = 0; r < 2; ++r)
#pragma unroll
        for (int lower = 0; lower < 2; ++lower) {
          index_t const row = (first_strip + 4 * r) * tile::rows + result_element(lane, 2 * lower).row;
          if (row < w.rows) routed[(mine.first + token) * layer.hidden + row] = factor * sums[r][n][2 * lower + upper];
        }
    }
}

}  // namespace detail

/// The experts of moe_layer in tiles of 128 pairs. Four launches; scratch: a copy of X. Compute capability 9.0 and code
/// compiled for sm_90a only. Weights are rounded to T with their scale.
template <half_precision T, tile_kind Kind, class Result>
requires(Kind != tile_kind::sparse4) void moe_warpgroup(context& on, moe_layer_view<T> const& layer,
                                                        device_matrix<T const> X, device_matrix<Result> Y,
                                                        moe_workspace<T> const& work, bool accumulate) {
  expects(on.compute_capability() == 90, "cuda::moe_layer", "wgmma: expected compute capability 9.0");
  auto const ordered = on.scratch_for<T>(X.size());
  order_for_warpgroups<T>(on, X, ordered.data());
  index_t const slots = layer.rule.top_k;
  index_t const tiles = most_token_tiles(X.extent(0) * slots, layer.experts, warpgroup_tokens);
  auto const shape = [&](index_t rows) {
    index_t const across = ceil_div(rows, index_t{256});
    expects(across <= 65535, "cuda::moe_layer", "width, hidden: expected at most 128 * 65535");
    return launch_shape{dim3(blocks_for(tiles), static_cast<unsigned>(across)), warpgroup_shape::threads,
                        warpgroup_shape::shared_bytes};
  };
  launch(on.stream(), shape(2 * layer.width), detail::moe_warpgroup_gate_up<T, Kind>, layer, ordered.data(),
         work.groups(), work.activations.data());
  launch(on.stream(), shape(layer.hidden), detail::moe_warpgroup_down<T, Kind>, layer, work.activations.data(),
         work.factors.data(), work.groups(), work.routed.data());
  for_each_element(on, Y.extent(0), Y.extent(1), false,
                   detail::add_slots<Result>{work.routed.data(), work.groups().position, slots, accumulate, Y});
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
