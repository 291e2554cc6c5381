// The experts of a layer for many tokens each: grouped products on the tensor cores, tokens gathered by index.
#pragma once

#include <slimtrim/cuda/elementwise.cuh>
#include <slimtrim/cuda/many_tokens.cuh>
#include <slimtrim/cuda/moe_view.cuh>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// Grid: tile of pairs, 128 rows of gate and up.
template <half_precision T, tile_kind Kind, int TokenTiles>
__global__ void __launch_bounds__(32 * many_tokens_shape::warps, 2)
    moe_many_gate_up(moe_layer_view<T> layer, device_matrix<T const> X, expert_groups groups, T* activations) {
  token_tile const mine = tile_of_tokens(groups.offsets, static_cast<int>(layer.experts), TokenTiles * tile::tokens,
                                         static_cast<int>(blockIdx.x));
  if (mine.expert < 0) return;
  tile_weight_view const w = layer.gate_up[mine.expert];
  int const slots = static_cast<int>(layer.rule.top_k);
  T const* rows[TokenTiles / 2];
  rows_to_fetch<T, TokenTiles>(mine.count, rows,
                               [&](int i) { return X.data + groups.pairs[mine.first + i] / slots * X.stride(0); });
  float sums[many_tokens_shape::strips_a_warp][TokenTiles][4] = {};
  index_t const strip = strip_of_warp();
  multiply_tokens<T, Kind, TokenTiles>(w, strip, 0, static_cast<int>(w.blocks()), rows, sums);
  int const lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int s = 0; s < many_tokens_shape::strips_a_warp; ++s) {
    if (strip + s >= w.strips()) continue;
#pragma unroll
    for (int n = 0; n < TokenTiles; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        tile_position const at = result_element(lane, e);
        int const token = n * tile::tokens + at.column;
        if (token < mine.count)
          activations[(mine.first + token) * layer.width + (strip + s) * 8 + at.row] = T(gated(sums[s][n][e], sums[s][n][e + 2]));
      }
  }
}

// Grid: tile of pairs, 128 rows of down.
template <half_precision T, tile_kind Kind, int TokenTiles>
__global__ void __launch_bounds__(32 * many_tokens_shape::warps, 2)
    moe_many_down(moe_layer_view<T> layer, T const* activations, float const* factors, expert_groups groups, float* routed) {
  token_tile const mine = tile_of_tokens(groups.offsets, static_cast<int>(layer.experts), TokenTiles * tile::tokens,
                                         static_cast<int>(blockIdx.x));
  if (mine.expert < 0) return;
  tile_weight_view const w = layer.down[mine.expert];
  T const* rows[TokenTiles / 2];
  rows_to_fetch<T, TokenTiles>(mine.count, rows, [&](int i) { return activations + (mine.first + i) * layer.width; });
  float sums[many_tokens_shape::strips_a_warp][TokenTiles][4] = {};
  index_t const strip = strip_of_warp();
  multiply_tokens<T, Kind, TokenTiles>(w, strip, 0, static_cast<int>(w.blocks()), rows, sums);
  int const lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int n = 0; n < TokenTiles; ++n)
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      int const token = n * tile::tokens + result_element(lane, upper).column;
      if (token >= mine.count) continue;
      float const factor = factors[groups.pairs[mine.first + token]];
#pragma unroll
      for (int s = 0; s < many_tokens_shape::strips_a_warp; ++s)
#pragma unroll
        for (int lower = 0; lower < 2; ++lower) {
          index_t const row = (strip + s) * tile::rows + result_element(lane, 2 * lower).row;
          if (row < w.rows) routed[(mine.first + token) * layer.hidden + row] = factor * sums[s][n][2 * lower + upper];
        }
    }
}

// Y(t, c) = (Y +) the rows of the token's slots, in their order.
template <class Result>
struct add_slots {
  float const* routed;
  std::int32_t const* position;
  index_t slots;
  bool accumulate;
  device_matrix<Result> Y;
  SLIMTRIM_HD void operator()(index_t t, index_t c) const {
    float sum = accumulate ? static_cast<float>(Y(t, c)) : 0.0F;
    for (index_t s = 0; s < slots; ++s) {
      index_t const at = position[t * slots + s];
      if (at >= 0) sum += routed[at * Y.extent(1) + c];
    }
    Y(t, c) = static_cast<Result>(sum);
  }
};

}  // namespace detail

/// The experts of moe_layer in tiles of TokenTiles * 8 pairs. Three launches.
template <half_precision T, tile_kind Kind, int TokenTiles, class Result>
void moe_many(context& on, moe_layer_view<T> const& layer, device_matrix<T const> X, device_matrix<Result> Y,
              moe_workspace<T> const& work, bool accumulate) {
  index_t const slots = layer.rule.top_k;
  index_t const tiles = most_token_tiles(X.extent(0) * slots, layer.experts, TokenTiles * tile::tokens);
  expects(takes_activations(X), "cuda::moe_layer", "X: expected rows aligned to 16 bytes");
  auto const shape = [&](index_t rows) {
    index_t const across = ceil_div(rows, many_tokens_shape::rows);
    expects(across <= 65535, "cuda::moe_layer", "width, hidden: expected at most 64 * 65535");
    return launch_shape{dim3(blocks_for(tiles), static_cast<unsigned>(across)), 32 * many_tokens_shape::warps,
                        many_tokens_shape::shared_bytes(TokenTiles)};
  };
  launch(on.stream(), shape(2 * layer.width), detail::moe_many_gate_up<T, Kind, TokenTiles>, layer, X, work.groups(),
         work.activations.data());
  launch(on.stream(), shape(layer.hidden), detail::moe_many_down<T, Kind, TokenTiles>, layer, work.activations.data(),
         work.factors.data(), work.groups(), work.routed.data());
  for_each_element(on, Y.extent(0), Y.extent(1), false,
                   detail::add_slots<Result>{work.routed.data(), work.groups().position, slots, accumulate, Y});
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
