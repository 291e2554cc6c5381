// Products for few tokens, bound by the bandwidth of the weights: each weight is read once, 16 bytes a lane, straight into
// the registers of the tensor cores.
//
// A block owns a strip of 16 rows. Its warps share the columns in turns of two tiles and keep several turns in flight;
// their sums meet in shared memory and are added in the order of the warps. Tokens fill the 8 columns of the instruction;
// a lane reads its token's activations itself, since they stay in L1. Shared memory: 512 bytes a warp and 8 tokens.
// What an H200 can issue while a tile of 1024 codes comes from memory at full bandwidth is 114 instructions of a warp, so their
// number matters as much as the bytes: bench/cuda/hot_loops.sh counts them.
#pragma once

#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/tile_fragment.cuh>

#include <cstdint>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// How the few-token kernels are shaped; all combinations give the same result up to the order of the sums.
struct few_tokens_shape {
  static constexpr int most_warps = 8;
  /// Long rows feed more warps; short ones would spend their time on beginning and ending.
  [[nodiscard]] static constexpr int warps(index_t blocks) { return blocks >= 128 ? most_warps : most_warps / 2; }
  /// Turns of `Tiles` tiles in flight a warp.
  template <tile_kind Kind, int Tiles>
  static constexpr int depth = has_codes(Kind) ? (Tiles == 2 ? 2 : 3) : 2 / Tiles;
  /// The most tokens that one pass over the weights serves.
  static constexpr int most_tokens = 32;
  /// Blocks of 256 threads that a multiprocessor has registers for.
  [[nodiscard]] static constexpr int resident_blocks(tile_kind kind, int token_tiles) {
    return token_tiles > 2 ? 1 : (token_tiles > 1 || !has_codes(kind) ? 2 : 3);
  }
};

namespace detail {

// sums += the strip's product with the columns of this warp, Tiles tiles at a time that share their scales. The block's
// first turns are on their way before `rows_of` says which tokens they meet.
template <half_precision T, tile_kind Kind, int TokenTiles, int Tiles, bool WithZeros, class RowsOf>
__device__ __forceinline__ void multiply_turns(tile_weight_view const& w, index_t strip, RowsOf const& rows_of,
                                               float (&sums)[TokenTiles][4]) {
  constexpr int depth = few_tokens_shape::depth<Kind, Tiles>;
  int const lane = static_cast<int>(threadIdx.x % 32);
  auto const blocks = static_cast<std::uint32_t>(w.blocks());
  std::uint32_t const begin = threadIdx.x / 32 * Tiles, stride = blockDim.x / 32 * Tiles;
  strip_reader<Kind> const reader(w, strip, lane);
  lane_turn<Kind, Tiles> ring[depth];
  std::uint32_t block = begin;  // what is fetched next
  typename strip_reader<Kind>::cursor next(reader, block);
  auto const fetch = [&]<bool Ahead>(std::bool_constant<Ahead>, lane_turn<Kind, Tiles>& to) {
#pragma unroll
    for (int i = 0; i < Tiles; ++i) next.template load<Ahead>(static_cast<std::uint32_t>(i), to.tile[i]);
    reader.template load_scales<WithZeros, Ahead>(block, to);
    next.advance(stride);
    block += stride;
  };
#pragma unroll
  for (int d = 0; d < depth; ++d)
    if (block < blocks) fetch(std::true_type{}, ring[d]);
  wait_for_earlier_work();
  T const* columns[TokenTiles];
  rows_of(columns);
#pragma unroll
  for (int n = 0; n < TokenTiles; ++n) columns[n] += begin * tile::block_columns + first_column<Kind>(lane);
  for (std::uint32_t now = begin; now < blocks;) {
#pragma unroll
    for (int d = 0; d < depth; ++d) {
      if (now >= blocks) break;
      std::uint32_t raised[2];
      raised_zeros<T>(WithZeros ? ring[d].zeros : 0x0808U, raised);
      float part[TokenTiles][4] = {};
#pragma unroll
      for (int i = 0; i < Tiles; ++i) {
        lane_activations x[TokenTiles];
#pragma unroll
        for (int n = 0; n < TokenTiles; ++n) read_activations<Kind>(columns[n] + i * tile::block_columns, lane, x[n]);
#pragma unroll
        for (int step = 0; step < tile_steps<Kind>; ++step) {
          std::uint32_t a[4];
          weight_registers<T, Kind>(ring[d].tile[i], step, raised, a);
#pragma unroll
          for (int n = 0; n < TokenTiles; ++n)
            multiply_step<T, Kind>(part[n], ring[d].tile[i], step, a, x[n].word + step_words<Kind> * step);
        }
      }
      float scale[2] = {1, 1};
      if constexpr (has_codes(Kind)) scales_of(w.scale_kind, ring[d].scales, scale);
#pragma unroll
      for (int n = 0; n < TokenTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[n][e] += scale[e / 2] * part[n][e];
        columns[n] += stride * tile::block_columns;
      }
      if (block < blocks) fetch(std::false_type{}, ring[d]);
      now += stride;
    }
  }
}

// sums += the strip's product with the columns of this warp. rows_of(rows): sets the lane's token of each tile of 8; lanes
// without one point at any other token, whose sums nobody keeps.
template <half_precision T, tile_kind Kind, int TokenTiles, class RowsOf>
__device__ __forceinline__ void multiply_strip(tile_weight_view const& w, index_t strip, RowsOf const& rows_of,
                                               float (&sums)[TokenTiles][4]) {
  if (has_codes(Kind) ? shares_in_pairs(w) : w.blocks() % 2 == 0)
    multiply_turns<T, Kind, TokenTiles, 2, false>(w, strip, rows_of, sums);
  else
    multiply_turns<T, Kind, TokenTiles, 1, true>(w, strip, rows_of, sums);
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
  static_assert(few_tokens_shape::most_warps % 8 == 0, "warps come in fours");
#pragma unroll 1
  for (unsigned warp = 0; warp < blockDim.x / 32; warp += 4)
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) total += shared[(warp + i) * TokenTiles * 128 + static_cast<unsigned>(e)];
  return total;
}

// Where sum number e belongs.
[[nodiscard]] SLIMTRIM_HD constexpr tile_position place_of_sum(int e) {
  auto const u = static_cast<unsigned>(e);
  tile_position const at = result_element(static_cast<int>(u % 32), static_cast<int>(u / 32 % 4));
  return {at.row, static_cast<int>(u / 128) * tile::tokens + at.column};
}

// Grid: one block a strip.
template <half_precision T, tile_kind Kind, int TokenTiles, class Result>
__global__ void __launch_bounds__(32 * few_tokens_shape::most_warps, few_tokens_shape::resident_blocks(Kind, TokenTiles))
    few_tokens_kernel(tile_weight_view w, device_matrix<T const> X, device_matrix<Result> Y) {
  auto* const shared = reinterpret_cast<float*>(shared_memory());
  index_t const strip = blockIdx.x;
  int const lane = static_cast<int>(threadIdx.x % 32), tokens = static_cast<int>(X.extent(0));
  let_later_work_begin();
  float sums[TokenTiles][4] = {};
  multiply_strip<T, Kind, TokenTiles>(
      w, strip,
      [&](T const* (&rows)[TokenTiles]) {
#pragma unroll
        for (int n = 0; n < TokenTiles; ++n) {
          int const token = n * tile::tokens + lane / 4;
          rows[n] = X.data + (token < tokens ? token : 0) * X.stride(0);
        }
      },
      sums);
  share_sums<TokenTiles>(sums, shared);
  for (int e = static_cast<int>(threadIdx.x); e < TokenTiles * 128; e += static_cast<int>(blockDim.x)) {
    tile_position const at = place_of_sum(e);
    if (at.column < tokens) Y(at.column, strip * tile::rows + at.row) = static_cast<Result>(total_of<TokenTiles>(shared, e));
  }
}

template <int TokenTiles>
[[nodiscard]] constexpr std::size_t few_tokens_shared_bytes(int warps) {
  return sizeof(float) * static_cast<std::size_t>(warps * TokenTiles * 128);
}

}  // namespace detail

/// Y = X Wᵀ for at most 32 tokens. X: [T, in] in 16 bits, 16-byte aligned rows; Y: [T, out], any layout. Products of
/// code - zero with activations are exact, sums in float: within a group of a tile or two by the tensor cores, then scaled
/// and added in a fixed order. Reads w.bytes() once. Deterministic. Throws `error` on shapes that it does not take.
template <half_precision T, tile_kind Kind, class Result>
void few_tokens_product(context& on, tile_weight_view const& w, device_matrix<T const> X, device_matrix<Result> Y) {
  auto const run = [&]<int TokenTiles>() {
    int const warps = few_tokens_shape::warps(w.blocks());
    launch(on.stream(),
           {dim3(blocks_for(w.strips())), static_cast<unsigned>(32 * warps),
            detail::few_tokens_shared_bytes<TokenTiles>(warps), on.overlaps()},
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
