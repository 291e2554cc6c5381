// Products for few tokens, bound by the bandwidth of the weights: each weight is read once, 16 bytes a lane, straight into
// the registers of the tensor cores.
//
// A block owns a strip of 16 rows. Its warps share the columns in turns of two tiles and keep several tiles in flight;
// their sums meet in shared memory and are added in the order of the warps. Tokens fill the 8 columns of the instruction;
// a lane reads its token's activations itself, since they stay in L1. Shared memory: 512 bytes a warp and 8 tokens.
// Per tile of 1024 codes a warp issues about 70 instructions, 60 % of what an H200 can issue at full memory bandwidth.
#pragma once

#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/tile_fragment.cuh>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// How the few-token kernels are shaped; all combinations give the same result up to the order of the sums.
struct few_tokens_shape {
  static constexpr int warps = 8;
  /// Tiles in flight a warp: 16 or 64 bytes a lane each.
  template <tile_kind Kind>
  static constexpr int depth = Kind == tile_kind::sparse4 ? 3 : (Kind == tile_kind::codes4 ? 4 : 2);
  /// Tiles that a warp takes before the next warp's turn.
  static constexpr int turn = 2;
  /// The most tokens that one pass over the weights serves.
  static constexpr int most_tokens = 32;
};

namespace detail {

// The tile number that warp `warp` meets as its i-th, and how many it meets of `blocks`.
[[nodiscard]] SLIMTRIM_HD constexpr int block_of_turn(int i, int warp, int warps) {
  constexpr int turn = few_tokens_shape::turn;
  return (i / turn * warps + warp) * turn + i % turn;
}
[[nodiscard]] SLIMTRIM_HD constexpr int blocks_of_warp(int blocks, int warp, int warps) {
  constexpr int turn = few_tokens_shape::turn;
  int const round = warps * turn, whole = blocks / round, rest = blocks % round - warp * turn;
  return whole * turn + (rest < 0 ? 0 : (rest > turn ? turn : rest));
}

// sums += the strip's product with the columns of this warp. token_rows: the lane's token of each tile of 8, or null.
template <half_precision T, tile_kind Kind, int TokenTiles>
__device__ __forceinline__ void multiply_strip(tile_weight_view const& w, index_t strip, T const* const (&token_rows)[TokenTiles],
                                               int live_tiles, float (&sums)[TokenTiles][4]) {
  constexpr int depth = few_tokens_shape::depth<Kind>;
  int const lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  int const count = blocks_of_warp(static_cast<int>(w.blocks()), warp, few_tokens_shape::warps);
  strip_reader<Kind> const reader(w, strip, lane);
  auto const block_at = [warp](int i) { return static_cast<std::uint32_t>(block_of_turn(i, warp, few_tokens_shape::warps)); };
  lane_tile<Kind> ring[depth];
#pragma unroll
  for (int d = 0; d < depth; ++d)
    if (d < count) reader.load(block_at(d), ring[d]);
  for (int first = 0; first < count; first += depth) {
#pragma unroll
    for (int d = 0; d < depth; ++d) {
      int const i = first + d;
      if (i >= count) break;
      lane_tile<Kind> const now = ring[d];
      if (i + depth < count) reader.load(block_at(i + depth), ring[d]);
      std::uint32_t const column = block_at(i) * tile::block_columns;
      std::uint32_t raised[2];
      raised_zeros<T>(now.zeros, raised);
      lane_activations x[TokenTiles];
      float part[TokenTiles][4] = {};
#pragma unroll
      for (int n = 0; n < TokenTiles; ++n) {
        x[n] = {};
        if (token_rows[n] != nullptr) read_activations<Kind>(token_rows[n] + column, lane, x[n]);
      }
#pragma unroll
      for (int step = 0; step < tile_steps<Kind>; ++step) {
        std::uint32_t a[4];
        weight_registers<T, Kind>(now, step, raised, a);
#pragma unroll
        for (int n = 0; n < TokenTiles; ++n) {
          if (n >= live_tiles) break;
          multiply_step<T, Kind>(part[n], now, step, a, x[n].word + step_words<Kind> * step);
        }
      }
      float scale[2] = {1, 1};
      if constexpr (has_codes(Kind)) scales_of(w.scale_kind, now.scales, scale);
#pragma unroll
      for (int n = 0; n < TokenTiles; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[n][e] += scale[e / 2] * part[n][e];
    }
  }
}

// Leaves each warp's sums in shared memory: [warps][TokenTiles][4][32].
template <int TokenTiles>
__device__ __forceinline__ void share_sums(float const (&sums)[TokenTiles][4], float* shared) {
  int const lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  sync_block();
#pragma unroll
  for (int n = 0; n < TokenTiles; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) shared[((warp * TokenTiles + n) * 4 + e) * 32 + lane] = sums[n][e];
  sync_block();
}

// Sum number e (of TokenTiles * 128) over the warps, in their order.
template <int TokenTiles>
[[nodiscard]] __device__ __forceinline__ float total_of(float const* shared, int e) {
  float total = 0;
#pragma unroll
  for (int warp = 0; warp < few_tokens_shape::warps; ++warp) total += shared[warp * TokenTiles * 128 + e];
  return total;
}

// Where sum number e belongs.
[[nodiscard]] SLIMTRIM_HD constexpr tile_position place_of_sum(int e) {
  tile_position const at = result_element(e % 32, e / 32 % 4);
  return {at.row, e / 128 * tile::tokens + at.column};
}

// Grid: one block a strip.
template <half_precision T, tile_kind Kind, int TokenTiles, class Result>
__global__ void __launch_bounds__(32 * few_tokens_shape::warps)
    few_tokens_kernel(tile_weight_view w, device_matrix<T const> X, device_matrix<Result> Y) {
  auto* const shared = reinterpret_cast<float*>(shared_memory());
  index_t const strip = blockIdx.x, tokens = X.extent(0);
  int const lane = static_cast<int>(threadIdx.x % 32);
  T const* token_rows[TokenTiles];
#pragma unroll
  for (int n = 0; n < TokenTiles; ++n) {
    index_t const token = n * tile::tokens + lane / 4;
    token_rows[n] = token < tokens ? X.data + token * X.stride(0) : nullptr;
  }
  float sums[TokenTiles][4] = {};
  multiply_strip<T, Kind, TokenTiles>(w, strip, token_rows, TokenTiles, sums);
  share_sums<TokenTiles>(sums, shared);
  for (int e = static_cast<int>(threadIdx.x); e < TokenTiles * 128; e += 32 * few_tokens_shape::warps) {
    tile_position const at = place_of_sum(e);
    if (at.column < tokens) Y(at.column, strip * tile::rows + at.row) = static_cast<Result>(total_of<TokenTiles>(shared, e));
  }
}

template <int TokenTiles>
[[nodiscard]] constexpr std::size_t few_tokens_shared_bytes() {
  return sizeof(float) * few_tokens_shape::warps * TokenTiles * 128;
}

}  // namespace detail

/// Y = X Wᵀ for at most 32 tokens. X: [T, in] in 16 bits, 16-byte aligned rows; Y: [T, out], any layout. Products of
/// code - zero with activations are exact, sums in float: within a tile by the tensor cores, then scaled and added in a
/// fixed order. Reads w.bytes() once. Deterministic. Throws `error` on shapes that it does not take.
template <half_precision T, tile_kind Kind, class Result>
void few_tokens_product(context& on, tile_weight_view const& w, device_matrix<T const> X, device_matrix<Result> Y) {
  auto const run = [&]<int TokenTiles>() {
    launch(on.stream(), {dim3(blocks_for(w.strips())), 32 * few_tokens_shape::warps, detail::few_tokens_shared_bytes<TokenTiles>()},
           detail::few_tokens_kernel<T, Kind, TokenTiles, Result>, w, X, Y);
  };
  expects(X.extent(0) <= few_tokens_shape::most_tokens, "few_tokens_product", "tokens: expected at most 32");
  check_product_operands<T, Kind, Result>(w, X, Y, "few_tokens_product");
  if (X.extent(0) == 0) return;
  if (X.extent(0) <= 8) return run.template operator()<1>();
  if (X.extent(0) <= 16) return run.template operator()<2>();
  run.template operator()<4>();
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
