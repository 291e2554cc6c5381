// The experts of a layer for few tokens each: weights are streamed once past the tokens that chose them.
#pragma once

#include <slimtrim/cuda/few_tokens.cuh>
#include <slimtrim/cuda/moe_view.cuh>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// The pairs of the active expert of blockIdx.y; none: `count` is 0.
struct active_pairs {
  int expert = 0, first = 0, count = 0;
};
[[nodiscard]] __device__ __forceinline__ active_pairs pairs_of_block(expert_groups const& groups) {
  if (static_cast<int>(blockIdx.y) >= *groups.active_count) return {};
  int const expert = groups.active[blockIdx.y], first = groups.offsets[expert];
  return {expert, first, groups.offsets[expert + 1] - first};
}

// Grid: strip of gate and up, active expert.
template <half_precision T, tile_kind Kind, int TokenTiles>
__global__ void __launch_bounds__(32 * few_tokens_shape::most_warps, few_tokens_shape::resident_blocks(Kind, TokenTiles))
    moe_few_gate_up(moe_layer_view<T> layer, device_matrix<T const> X, expert_groups groups, T* activations) {
  let_later_work_begin();
  wait_for_earlier_work();
  active_pairs const mine = pairs_of_block(groups);
  if (mine.count == 0) return;
  auto* const shared = reinterpret_cast<float*>(shared_memory());
  tile_weight_view const w = layer.gate_up[mine.expert];
  index_t const strip = blockIdx.x;
  int const lane = static_cast<int>(threadIdx.x % 32), slots = static_cast<int>(layer.rule.top_k);
  for (int begin = 0; begin < mine.count; begin += TokenTiles * tile::tokens) {
    int const count = mine.count - begin;
    float sums[TokenTiles][4] = {};
    multiply_strip<T, Kind, TokenTiles>(
        w, strip,
        [&](T const* (&rows)[TokenTiles]) {
#pragma unroll
          for (int n = 0; n < TokenTiles; ++n) {
            int const i = n * tile::tokens + lane / 4;
            rows[n] = X.data + groups.pairs[mine.first + begin + (i < count ? i : 0)] / slots * X.stride(0);
          }
        },
        sums);
    share_sums<TokenTiles>(sums, shared);
    // Registers 0 and 1 of a lane are gate rows, 2 and 3 the same rows of up.
    for (int i = static_cast<int>(threadIdx.x); i < TokenTiles * 64; i += static_cast<int>(blockDim.x)) {
      int const e = i / 64 * 128 + i % 64;
      tile_position const at = place_of_sum(e);
      if (at.column >= count) continue;
      float const value = gated(total_of<TokenTiles>(shared, e), total_of<TokenTiles>(shared, e + 64));
      activations[(mine.first + begin + at.column) * layer.width + strip * 8 + at.row] = T(value);
    }
  }
}

// Grid: strip of down, active expert. The block that finishes a strip last adds the slots of every token, in their order.
template <half_precision T, tile_kind Kind, int TokenTiles, class Result>
__global__ void __launch_bounds__(32 * few_tokens_shape::most_warps, few_tokens_shape::resident_blocks(Kind, TokenTiles))
    moe_few_down(moe_layer_view<T> layer, T const* activations, float const* factors, expert_groups groups, float* routed,
                 unsigned* tickets, device_matrix<Result> Y, bool accumulate) {
  let_later_work_begin();
  wait_for_earlier_work();
  active_pairs const mine = pairs_of_block(groups);
  auto* const shared = reinterpret_cast<float*>(shared_memory());
  index_t const strip = blockIdx.x;
  int const lane = static_cast<int>(threadIdx.x % 32), slots = static_cast<int>(layer.rule.top_k);
  // Where no token has an expert, the first block of a strip still writes zeros.
  int const active = *groups.active_count > 0 ? *groups.active_count : 1;
  if (static_cast<int>(blockIdx.y) >= active) return;
  if (mine.count > 0) {
    tile_weight_view const w = layer.down[mine.expert];
    for (int begin = 0; begin < mine.count; begin += TokenTiles * tile::tokens) {
      int const count = mine.count - begin, first = mine.first + begin;
      float sums[TokenTiles][4] = {};
      multiply_strip<T, Kind, TokenTiles>(
          w, strip,
          [&](T const* (&rows)[TokenTiles]) {
#pragma unroll
            for (int n = 0; n < TokenTiles; ++n) {
              int const i = n * tile::tokens + lane / 4;
              rows[n] = activations + (first + (i < count ? i : 0)) * layer.width;
            }
          },
          sums);
      share_sums<TokenTiles>(sums, shared);
      for (int e = static_cast<int>(threadIdx.x); e < TokenTiles * 128; e += static_cast<int>(blockDim.x)) {
        tile_position const at = place_of_sum(e);
        if (at.column >= count) continue;
        routed[(first + at.column) * layer.hidden + strip * tile::rows + at.row] =
            factors[groups.pairs[first + at.column]] * total_of<TokenTiles>(shared, e);
      }
    }
  }
  __shared__ bool is_last;
  sync_block();
  if (threadIdx.x == 0) is_last = draw_ticket(tickets + strip) == static_cast<unsigned>(active) - 1;
  sync_block();
  if (!is_last) return;
  int const tokens = static_cast<int>(Y.extent(0));
  for (int i = static_cast<int>(threadIdx.x); i < tokens * tile::rows; i += static_cast<int>(blockDim.x)) {
    index_t const token = i / tile::rows, column = strip * tile::rows + i % tile::rows;
    float sum = accumulate ? static_cast<float>(Y(token, column)) : 0.0F;
    for (int slot = 0; slot < slots; ++slot) {
      int const position = groups.position[token * slots + slot];
      if (position >= 0) sum += load_fresh(routed + position * layer.hidden + column);
    }
    Y(token, column) = static_cast<Result>(sum);
  }
  if (threadIdx.x == 0) tickets[strip] = 0;
}

}  // namespace detail

/// The experts of moe_layer, TokenTiles * 8 tokens at a time. Two launches. X: rows aligned to 16 bytes.
template <half_precision T, tile_kind Kind, int TokenTiles, class Result>
void moe_few(context& on, moe_layer_view<T> const& layer, device_matrix<T const> X, device_matrix<Result> Y,
             moe_workspace<T> const& work, bool accumulate) {
  expects(takes_activations(X), "cuda::moe_layer", "X: expected rows aligned to 16 bytes");
  index_t const pairs = X.extent(0) * layer.rule.top_k, most = pairs < layer.experts ? pairs : layer.experts;
  auto const active = static_cast<unsigned>(most);
  auto const shape = [&on, active](index_t rows, index_t columns) {
    int const warps = few_tokens_shape::warps(columns / tile::block_columns);
    return launch_shape{dim3(blocks_for(rows / tile::rows), active), static_cast<unsigned>(32 * warps),
                        detail::few_tokens_shared_bytes<TokenTiles>(warps), on.overlaps()};
  };
  launch(on.stream(), shape(2 * layer.width, layer.hidden),
         detail::moe_few_gate_up<T, Kind, TokenTiles>, layer, X, work.groups(), work.activations.data());
  launch(on.stream(), shape(layer.hidden, layer.width),
         detail::moe_few_down<T, Kind, TokenTiles, Result>, layer, work.activations.data(), work.factors.data(), work.groups(),
         work.routed.data(), work.tickets.data(), Y, accumulate);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
