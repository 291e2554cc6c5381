// Products for many tokens, bound by the tensor cores: mma.sync over tiles of 128 rows by 32 or 64 tokens, dense or grouped
// by expert, weights from memory to registers and activations through shared memory.
//
// A block owns 8 strips (two a warp) and one tile of tokens. The activations of 64 columns are one stage of a ring that
// cp.async fills four stages ahead, rows 16 bytes apart from each other's banks; tokens are gathered by index, never
// copied. Each weight is made into 16 bits once for all tokens of the tile. Registers: 64 sums of the block's columns and 64
// of the whole for 64 tokens. Shared memory: 4 stages of tokens * 144 bytes.
#pragma once

#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/elementwise.cuh>
#include <slimtrim/cuda/tile_fragment.cuh>
#include <slimtrim/cuda/token_tiles.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// How the many-token kernels are shaped.
struct many_tokens_shape {
  static constexpr int warps = 4;
  static constexpr int strips_a_warp = 2;
  static constexpr int rows = warps * strips_a_warp * tile::rows;
  static constexpr int stages = 4;
  static constexpr int row_bytes = 2 * tile::block_columns + 16;  // no two rows of a quarter warp meet in a bank
  [[nodiscard]] static constexpr std::size_t shared_bytes(int token_tiles) {
    return static_cast<std::size_t>(stages) * static_cast<std::size_t>(token_tiles * tile::tokens * row_bytes);
  }
};

namespace detail {

// Starts the copies of columns of block `block` of this thread's share of the tokens.
template <half_precision T, int TokenTiles>
__device__ __forceinline__ void fetch_activations(T const* const (&rows)[TokenTiles / 2], int block, unsigned char* stage) {
  // Eight threads take the 128 bytes of one token, 16 tokens at a time.
  int const chunk = static_cast<int>(threadIdx.x % 8), first = static_cast<int>(threadIdx.x / 8);
#pragma unroll
  for (int i = 0; i < TokenTiles / 2; ++i) {
    int const token = first + 16 * i;
    T const* const from = rows[i];
    copy_async(stage + token * many_tokens_shape::row_bytes + 16 * chunk,
               from != nullptr ? static_cast<void const*>(from + block * tile::block_columns + 8 * chunk) : nullptr,
               from != nullptr);
  }
}

// sums[s][n][e] += columns [first_block, last_block) of strips strip .. strip + 1 of this warp. rows: the token rows that
// this thread fetches, null for none. Strips at or behind the last are computed on the last one's weights and unused. Paired:
// first and last are even, two tiles that follow one another share their scales, and there are no zero points.
template <half_precision T, tile_kind Kind, int TokenTiles, bool Paired>
__device__ __forceinline__ void multiply_blocks(tile_weight_view const& w, index_t strip, int first_block, int last_block,
                                                T const* const (&rows)[TokenTiles / 2],
                                                float (&sums)[many_tokens_shape::strips_a_warp][TokenTiles][4]) {
  constexpr int strips = many_tokens_shape::strips_a_warp, stages = many_tokens_shape::stages;
  constexpr int stage_bytes = TokenTiles * tile::tokens * many_tokens_shape::row_bytes;
  constexpr int half_steps = tile_steps<Kind> / 2;
  // Blocks of columns in flight: with half the sums there is room for more, and bandwidth to wait for.
  constexpr int depth = Kind == tile_kind::codes4 && TokenTiles <= 4 ? 4 : 2;
  unsigned char* const shared = shared_memory();
  int const lane = static_cast<int>(threadIdx.x % 32), later = lane % 4 / 2;
  index_t const last_strip = w.strips() - 1;
  strip_reader<Kind> const readers[strips] = {strip_reader<Kind>(w, strip < last_strip ? strip : last_strip, lane),
                                              strip_reader<Kind>(w, strip + 1 < last_strip ? strip + 1 : last_strip, lane)};
  static_assert(strips == 2);
  lane_tile<Kind> ring[depth][strips];
  auto const load = [&](int block, int d) {
#pragma unroll
    for (int s = 0; s < strips; ++s)
      if (Paired && d % 2 == 1)
        readers[s].load_words(static_cast<std::uint32_t>(block), ring[d][s]);
      else
        readers[s].template load<!Paired>(static_cast<std::uint32_t>(block), ring[d][s]);
  };
#pragma unroll
  for (int d = 0; d < depth; ++d)
    if (first_block + d < last_block) load(first_block + d, d);
#pragma unroll
  for (int s = 0; s < stages - 1; ++s) {
    if (first_block + s < last_block) fetch_activations<T, TokenTiles>(rows, first_block + s, shared + s * stage_bytes);
    commit_copies();
  }
  for (int first = first_block; first < last_block; first += depth) {
    float part[strips][TokenTiles][4];
    std::uint32_t scales[strips];
#pragma unroll
    for (int d = 0; d < depth; ++d) {
      int const block = first + d;
      if ((!Paired || (d % 2 == 0 && d > 0)) && block >= last_block) break;
      wait_for_copies<stages - 2>();
      sync_block();  // everybody's part of this stage is there, and nobody reads the stage that is filled next
      int const ahead = block + stages - 1;
      if (ahead < last_block)
        fetch_activations<T, TokenTiles>(rows, ahead, shared + (ahead - first_block) % stages * stage_bytes);
      commit_copies();
      if constexpr (has_codes(Kind)) {
        if (!Paired || d % 2 == 0) {
#pragma unroll
          for (int s = 0; s < strips; ++s) {
            scales[s] = ring[d][s].scales;
#pragma unroll
            for (int n = 0; n < TokenTiles; ++n)
#pragma unroll
              for (int e = 0; e < 4; ++e) part[s][n][e] = 0;
          }
        }
      }
      unsigned char const* const mine = shared + (block - first_block) % stages * stage_bytes +
                                        lane / 4 * many_tokens_shape::row_bytes +
                                        (Kind == tile_kind::sparse4 ? 64 * (lane % 4 / 2) + 4 * (lane % 2) : 32 * (lane % 4));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        std::uint32_t a[strips][half_steps][4];
#pragma unroll
        for (int s = 0; s < strips; ++s) {
          std::uint32_t raised[2];
          raised_zeros<T>(Paired ? 0x0808U : ring[d][s].zeros, raised);
#pragma unroll
          for (int step = 0; step < half_steps; ++step)
            weight_registers<T, Kind>(ring[d][s], half_steps * half + step, raised, a[s][step]);
        }
#pragma unroll
        for (int n = 0; n < TokenTiles; ++n) {
          unsigned char const* const from = mine + n * tile::tokens * many_tokens_shape::row_bytes;
          words4 x;
          if constexpr (Kind == tile_kind::sparse4) {
            // Every other word, as take_half. The lanes of the later columns begin with the second of two, where they would meet
            // those of the earlier columns in a bank.
#pragma unroll
            for (int i = 0; i < 2; ++i) {
              auto const* const two = from + 32 * half + 16 * i;
              auto const one = *reinterpret_cast<std::uint32_t const*>(two + 8 * later),
                         other = *reinterpret_cast<std::uint32_t const*>(two + 8 * (1 - later));
              x.word[2 * i] = later != 0 ? other : one;
              x.word[2 * i + 1] = later != 0 ? one : other;
            }
          } else {
            x = reinterpret_cast<words4 const*>(from)[half];
          }
#pragma unroll
          for (int step = 0; step < half_steps; ++step)
#pragma unroll
            for (int s = 0; s < strips; ++s)
              multiply_step<T, Kind>(has_codes(Kind) ? part[s][n] : sums[s][n], ring[d][s], half_steps * half + step, a[s][step],
                                     x.word + step_words<Kind> * step);
        }
      }
      if (block + depth < last_block) load(block + depth, d);
      if constexpr (has_codes(Kind)) {
        if (Paired && d % 2 == 0) continue;
#pragma unroll
        for (int s = 0; s < strips; ++s) {
          float scale[2];
          scales_of(w.scale_kind, scales[s], scale);
#pragma unroll
          for (int n = 0; n < TokenTiles; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) sums[s][n][e] += scale[e / 2] * part[s][n][e];
        }
      }
    }
  }
}

// The same for any weight; where tiles come in pairs, parts of the columns must too.
template <half_precision T, tile_kind Kind, int TokenTiles>
__device__ __forceinline__ void multiply_tokens(tile_weight_view const& w, index_t strip, int first_block, int last_block,
                                                T const* const (&rows)[TokenTiles / 2],
                                                float (&sums)[many_tokens_shape::strips_a_warp][TokenTiles][4]) {
  if constexpr (has_codes(Kind)) {
    if (shares_in_pairs(w)) return multiply_blocks<T, Kind, TokenTiles, true>(w, strip, first_block, last_block, rows, sums);
  }
  multiply_blocks<T, Kind, TokenTiles, false>(w, strip, first_block, last_block, rows, sums);
}

// Rows of the tokens that this thread fetches: those of a tile of `count`, through `row_of(i)`.
template <half_precision T, int TokenTiles, class RowOf>
__device__ __forceinline__ void rows_to_fetch(int count, T const* (&rows)[TokenTiles / 2], RowOf const& row_of) {
#pragma unroll
  for (int i = 0; i < TokenTiles / 2; ++i) {
    int const token = static_cast<int>(threadIdx.x / 8) + 16 * i;
    rows[i] = token < count ? row_of(token) : nullptr;
  }
}

[[nodiscard]] __device__ __forceinline__ index_t strip_of_warp() {
  return (static_cast<index_t>(blockIdx.y) * many_tokens_shape::warps + threadIdx.x / 32) *
         many_tokens_shape::strips_a_warp;
}

// Grid: tile of tokens, 128 rows, part of the columns; blocks that run together share weights, and the activations of
// all tokens, which are fewer bytes, stay in L2. With one part Y is written, with several each part of `partial`,
// [parts, tokens, rows].
template <half_precision T, tile_kind Kind, int TokenTiles, class Result>
__global__ void __launch_bounds__(32 * many_tokens_shape::warps, 2)
    many_tokens_kernel(tile_weight_view w, device_matrix<T const> X, device_matrix<Result> Y, float* partial) {
  int const blocks = static_cast<int>(w.blocks()), parts = static_cast<int>(gridDim.z), part = static_cast<int>(blockIdx.z);
  index_t const first_token = static_cast<index_t>(blockIdx.x) * TokenTiles * tile::tokens, tokens = X.extent(0);
  int const count = static_cast<int>(tokens - first_token < TokenTiles * tile::tokens ? tokens - first_token : TokenTiles * tile::tokens);
  T const* rows[TokenTiles / 2];
  rows_to_fetch<T, TokenTiles>(count, rows, [&](int i) { return X.data + (first_token + i) * X.stride(0); });
  float sums[many_tokens_shape::strips_a_warp][TokenTiles][4] = {};
  index_t const strip = strip_of_warp();
  int const whole = shares_in_pairs(w) ? 2 : 1;
  int const first = blocks / whole * part / parts * whole, last = blocks / whole * (part + 1) / parts * whole;
  multiply_tokens<T, Kind, TokenTiles>(w, strip, first, last, rows, sums);
  int const lane = static_cast<int>(threadIdx.x % 32);
#pragma unroll
  for (int s = 0; s < many_tokens_shape::strips_a_warp; ++s) {
    if (strip + s >= w.strips()) continue;
#pragma unroll
    for (int n = 0; n < TokenTiles; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        tile_position const at = result_element(lane, e);
        index_t const token = first_token + n * tile::tokens + at.column, row = (strip + s) * tile::rows + at.row;
        if (token >= tokens) continue;
        if (parts == 1) {
          Y(token, row) = static_cast<Result>(sums[s][n][e]);
        } else {
          partial[(part * tokens + token) * w.rows + row] = sums[s][n][e];
        }
      }
  }
}

template <class Result>
struct add_parts {
  float const* partial;
  int parts;
  device_matrix<Result> Y;
  SLIMTRIM_HD void operator()(index_t t, index_t r) const {
    float sum = 0;
    for (index_t p = 0; p < parts; ++p) sum += partial[(p * Y.extent(0) + t) * Y.extent(1) + r];
    Y(t, r) = static_cast<Result>(sum);
  }
};

}  // namespace detail

/// Into how many parts the columns are cut so that every multiprocessor has two blocks, at least 8 tiles deep each.
[[nodiscard]] constexpr int parts_of_columns(index_t grid_blocks, index_t column_blocks, int multiprocessors) {
  int parts = 1;
  while (grid_blocks * parts < 2 * multiprocessors && column_blocks / (2 * parts) >= 8 && parts < 16) parts *= 2;
  return parts;
}

/// Y = X Wᵀ for any number of tokens; shapes, alignment and arithmetic as few_tokens_product. Weights are read once for
/// every 64 tokens, from L2 after the first. Where the grid is small, columns are cut into parts added in order: scratch of
/// parts * T * out floats. Deterministic on one kind of device.
template <half_precision T, tile_kind Kind, class Result>
void many_tokens_product(context& on, tile_weight_view const& w, device_matrix<T const> X, device_matrix<Result> Y) {
  check_product_operands<T, Kind, Result>(w, X, Y, "many_tokens_product");
  if (X.extent(0) == 0) return;
  auto const run = [&]<int TokenTiles>() {
    index_t const across = ceil_div(w.rows, many_tokens_shape::rows), down = ceil_div(X.extent(0), TokenTiles * tile::tokens);
    expects(across <= 65535, "many_tokens_product", "rows of the weight: expected at most 128 * 65535");
    int const parts = parts_of_columns(across * down, w.blocks(), on.multiprocessors());
    auto const partial = on.scratch_for<float>(parts > 1 ? parts * X.extent(0) * w.rows : 0);
    launch(on.stream(),
           {dim3(blocks_for(down), static_cast<unsigned>(across), static_cast<unsigned>(parts)),
            32 * many_tokens_shape::warps, many_tokens_shape::shared_bytes(TokenTiles)},
           detail::many_tokens_kernel<T, Kind, TokenTiles, Result>, w, X, Y, partial.data());
    if (parts > 1)
      for_each_element(on, Y.extent(0), Y.extent(1), false, detail::add_parts<Result>{partial.data(), parts, Y});
  };
  X.extent(0) <= 32 ? run.template operator()<4>() : run.template operator()<8>();
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
