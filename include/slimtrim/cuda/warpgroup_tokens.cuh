// Products for more than 64 tokens on sm_90a: wgmma over tiles of 128 or 256 rows by 128 tokens, weights as operand A
// from registers, activations as operand B from shared memory.
//
// The codes of a tile are made into 16-bit weights, scale included and rounded once as expand_tiles rounds them, in the
// registers that the instruction reads, which are those of mma.m16n8k16. The instruction reads activations itself, so
// their columns must stand in its order: one pass before puts each 64 columns of a token into the order of the four
// steps (fragment.hpp). A block's two warpgroups share the stages of activations; while the tensor cores work for one,
// the other makes weights.
//
// No device has run this yet, so `product` chooses it only where its limits say so.
#pragma once

#include <slimtrim/cuda/arch/sm90.cuh>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/elementwise.cuh>
#include <slimtrim/cuda/many_tokens.cuh>
#include <slimtrim/cuda/tile_fragment.cuh>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// How the warpgroup kernels are shaped.
struct warpgroup_shape {
  static constexpr int warpgroups = 2;
  static constexpr int threads = 128 * warpgroups;
  static constexpr int stages = 5;
  static constexpr int ahead = stages - 2;  // one stage is read, one may still be
  static constexpr int row_bytes = 2 * tile::block_columns;
  static constexpr int stage_bytes = warpgroup_tokens * row_bytes;
  static constexpr std::size_t shared_bytes = static_cast<std::size_t>(stages) * stage_bytes;
};

namespace detail {

/// The pair of columns (0 .. 31) of a block of 64 that stands as pair `at` in the order of the instructions' steps.
[[nodiscard]] SLIMTRIM_HD constexpr int pair_in_steps(int at) { return block_column(at / 8, 2 * (at % 8)) / 2; }

// One block a token; a thread gathers the 16 bytes of one step's half: pairs 8 j + chunk of the block, j = 0 .. 3.
template <half_precision T>
__global__ void __launch_bounds__(256) order_columns(device_matrix<T const> X, bool aligned, words4* to) {
  index_t const token = blockIdx.x, chunks = X.extent(1) / 8;
  for (index_t chunk = threadIdx.x; chunk < chunks; chunk += 256) {
    index_t const first = chunk / 8 * tile::block_columns + 2 * (chunk % 8);
    words4 out;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      index_t const from = first + 16 * j;
      out.word[j] = aligned ? *reinterpret_cast<std::uint32_t const*>(&X(token, from))
                            : pair_of(X(token, from), X(token, from + 1));
    }
    to[token * chunks + chunk] = out;
  }
}

/// Tokens whose activations one thread fetches.
inline constexpr int fetched_tokens = warpgroup_tokens * 8 / warpgroup_shape::threads;

// Their rows among the 128 of a tile, of `count` through `row_of(i)`, null for none.
template <half_precision T, class RowOf>
__device__ __forceinline__ void rows_to_fetch_swizzled(int count, T const* (&rows)[fetched_tokens],
                                                       RowOf const& row_of) {
#pragma unroll
  for (int i = 0; i < fetched_tokens; ++i) {
    int const token = static_cast<int>(threadIdx.x / 8) + warpgroup_shape::threads / 8 * i;
    rows[i] = token < count ? row_of(token) : nullptr;
  }
}

// Starts the copies of 64 columns of 128 tokens, eight threads a token, chunks swizzled.
template <half_precision T>
__device__ __forceinline__ void fetch_swizzled(T const* const (&rows)[fetched_tokens], int block,
                                               unsigned char* stage) {
  int const chunk = static_cast<int>(threadIdx.x % 8);
#pragma unroll
  for (int i = 0; i < fetched_tokens; ++i) {
    int const token = static_cast<int>(threadIdx.x / 8) + warpgroup_shape::threads / 8 * i;
    T const* const from = rows[i];
    copy_async(stage + token * warpgroup_shape::row_bytes + 16 * (chunk ^ (token % 8)),
               from != nullptr ? static_cast<void const*>(from + block * tile::block_columns + 8 * chunk) : nullptr,
               from != nullptr);
  }
}

// Register values of one step of a tile: (code - zero) * scale rounded to T, or the elements. The product has at most 16 bits,
// so one instruction on pairs of T rounds as floats would, where scales are of type T.
template <half_precision T, tile_kind Kind, bool Plain>
__device__ __forceinline__ void scaled_registers(lane_tile<Kind> const& from, int step, tile_scale kind,
                                                 std::uint32_t (&a)[4]) {
  std::uint32_t raised[2];
  raised_zeros<T>(Plain ? 0x0808U : from.zeros, raised);
  weight_registers<T, Kind>(from, step, raised, a);
  if constexpr (Plain) {
    std::uint32_t const scale[2] = {doubled(from.scales, false), doubled(from.scales, true)};
#pragma unroll
    for (int reg = 0; reg < 4; ++reg) a[reg] = multiply_pairs<T>(a[reg], scale[reg % 2]);
  } else if constexpr (has_codes(Kind)) {
    float scale[2];
    scales_of(kind, from.scales, scale);
#pragma unroll
    for (int reg = 0; reg < 4; ++reg)
      a[reg] =
          round_pair<T>(widen_pair<T>(a[reg], false) * scale[reg % 2], widen_pair<T>(a[reg], true) * scale[reg % 2]);
  }
}

// Whether scales are of the type of the activations, and codes without zero points.
template <half_precision T>
[[nodiscard]] SLIMTRIM_HD bool scales_as_pairs(tile_weight_view const& w) {
  return w.zeros == nullptr && w.scale_kind == (std::is_same_v<T, bfloat16> ? tile_scale::bfloat16 : tile_scale::float16);
}

// The strip of tile 0 of this warp; tile r is 4 r further. A warpgroup owns `Tiles` tiles of 64 rows.
template <int Tiles>
[[nodiscard]] __device__ __forceinline__ index_t first_strip_of_warp(index_t row_block) {
  int const warp = static_cast<int>(threadIdx.x / 32);
  return (row_block * warpgroup_shape::warpgroups + warp / 4) * Tiles * 4 + warp % 4;
}

// The tokens' way into shared memory: stages of 64 columns, `ahead` of them under way.
template <half_precision T>
class token_stages {
 public:
  __device__ __forceinline__ token_stages(T const* const (&rows)[fetched_tokens], int first, int last)
      : rows_(rows), first_(first), last_(last) {
#pragma unroll
    for (int s = 0; s < ahead; ++s) {
      if (first + s < last) fetch_swizzled<T>(rows, first + s, shared_memory() + s * warpgroup_shape::stage_bytes);
      commit_copies();
    }
  }
  // The address of stage `block`, once everybody's part of it is there and everybody has done with the stage of two blocks
  // ago, whose place takes what is fetched next.
  [[nodiscard]] __device__ __forceinline__ std::uint32_t begin(int block) const {
    constexpr int stages = warpgroup_shape::stages;
    wait_for_copies<ahead - 1>();
    fence_for_warpgroup();
    sync_block();
    int const fetched = block + ahead, place = block - first_;
    if (fetched < last_)
      fetch_swizzled<T>(rows_, fetched, shared_memory() + (place + ahead) % stages * warpgroup_shape::stage_bytes);
    commit_copies();
    return shared_address(shared_memory() + place % stages * warpgroup_shape::stage_bytes);
  }

 private:
  static constexpr int ahead = warpgroup_shape::ahead;
  T const* const (&rows_)[fetched_tokens];
  int first_, last_;
};

// The accumulators are there: nothing that reads them may come before.
template <int Tiles>
__device__ __forceinline__ void end_warpgroup(float (&sums)[Tiles][warpgroup_tokens / 8][4]) {
  wait_for_warpgroup<0>();
#pragma unroll
  for (int r = 0; r < Tiles; ++r)
#pragma unroll
    for (int n = 0; n < warpgroup_tokens / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) settle(sums[r][n][e]);
}

// sums += columns of blocks [first_block, last_block) of the warp's strips times the tile's tokens, whose columns stand
// in steps' order. Behind the last strip its weights are used, for sums that nobody keeps. While the products of three steps
// are under way the weights of the next are made, in the registers of the step whose product is done.
template <half_precision T, tile_kind Kind, int Tiles, bool Plain>
__device__ __forceinline__ void multiply_steps(tile_weight_view const& w, index_t first_strip, int first_block,
                                               int last_block, T const* const (&rows)[fetched_tokens],
                                               float (&sums)[Tiles][warpgroup_tokens / 8][4]) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  index_t const last_strip = w.strips() - 1;
  lane_tile<Kind> next[Tiles];
  auto const load = [&](int block) {
#pragma unroll
    for (int r = 0; r < Tiles; ++r) {
      index_t const strip = first_strip + 4 * r < last_strip ? first_strip + 4 * r : last_strip;
      strip_reader<Kind>(w, strip, lane).template load<!Plain>(static_cast<std::uint32_t>(block), next[r]);
    }
  };
  if (first_block < last_block) load(first_block);
  token_stages<T> const tokens(rows, first_block, last_block);
  std::uint32_t a[Tiles][tile::steps][4];
  for (int block = first_block; block < last_block; ++block) {
    std::uint32_t const stage = tokens.begin(block);
    lane_tile<Kind> now[Tiles];
#pragma unroll
    for (int r = 0; r < Tiles; ++r) now[r] = next[r];
    if (block + 1 < last_block) load(block + 1);
#pragma unroll
    for (int step = 0; step < tile::steps; ++step) {
      wait_for_warpgroup<tile::steps - 1>();
#pragma unroll
      for (int r = 0; r < Tiles; ++r) scaled_registers<T, Kind, Plain>(now[r], step, w.scale_kind, a[r][step]);
      begin_warpgroup();
#pragma unroll
      for (int r = 0; r < Tiles; ++r)
        multiply_warpgroup<T>(sums[r], a[r][step], swizzled_rows(stage + 32 * static_cast<std::uint32_t>(step)));
      commit_warpgroup();
    }
  }
  end_warpgroup(sums);
}

// The same for 16-bit weights, which the products read from the registers that they were loaded into. A register may not be
// written before the product that reads it is done, so two sets take turns, and a step's words of the next block come into the
// other set when its product of the block before is known to be done.
template <half_precision T, tile_kind Kind, int Tiles>
__device__ __forceinline__ void multiply_loaded(tile_weight_view const& w, index_t first_strip, int first_block, int last_block,
                                                T const* const (&rows)[fetched_tokens],
                                                float (&sums)[Tiles][warpgroup_tokens / 8][4]) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  index_t const last_strip = w.strips() - 1;
  words4 const* from[Tiles];
#pragma unroll
  for (int r = 0; r < Tiles; ++r)
    from[r] = w.words + w.word_index(first_strip + 4 * r < last_strip ? first_strip + 4 * r : last_strip, first_block, lane);
  words4 even[Tiles][tile::steps], odd[Tiles][tile::steps];
  auto const load = [&](words4 (&to)[Tiles][tile::steps], int ahead, int step) {
#pragma unroll
    for (int r = 0; r < Tiles; ++r)
      to[r][step] = load_once(from[r] + static_cast<std::uint32_t>(ahead) * w.tile_words() + 32 * step);
  };
  if (first_block < last_block)
#pragma unroll
    for (int step = 0; step < tile::steps; ++step) load(even, 0, step);
  token_stages<T> const tokens(rows, first_block, last_block);
  auto const turn = [&](int block, words4 const (&now)[Tiles][tile::steps], words4 (&other)[Tiles][tile::steps]) {
    std::uint32_t const stage = tokens.begin(block);
#pragma unroll
    for (int step = 0; step < tile::steps; ++step) {
      wait_for_warpgroup<tile::steps - 1>();
      if (block + 1 < last_block) load(other, block + 1 - first_block, step);
      begin_warpgroup();
#pragma unroll
      for (int r = 0; r < Tiles; ++r)
        multiply_warpgroup<T>(sums[r], now[r][step].word, swizzled_rows(stage + 32 * static_cast<std::uint32_t>(step)));
      commit_warpgroup();
    }
  };
  for (int block = first_block; block < last_block; block += 2) {
    turn(block, even, odd);
    if (block + 1 < last_block) turn(block + 1, odd, even);
  }
  end_warpgroup(sums);
}

// The same for any weight.
template <half_precision T, tile_kind Kind, int Tiles>
__device__ __forceinline__ void multiply_warpgroups(tile_weight_view const& w, index_t first_strip, int first_block,
                                                    int last_block, T const* const (&rows)[fetched_tokens],
                                                    float (&sums)[Tiles][warpgroup_tokens / 8][4]) {
  if constexpr (has_codes(Kind)) {
    if (scales_as_pairs<T>(w))
      return multiply_steps<T, Kind, Tiles, true>(w, first_strip, first_block, last_block, rows, sums);
    multiply_steps<T, Kind, Tiles, false>(w, first_strip, first_block, last_block, rows, sums);
  } else {
    multiply_loaded<T, Kind, Tiles>(w, first_strip, first_block, last_block, rows, sums);
  }
}

// Grid: 128 tokens, 128 * Tiles rows, part of the columns; X: [T, columns] contiguous, columns in steps' order.
template <half_precision T, tile_kind Kind, int Tiles, class Result>
__global__ void __launch_bounds__(warpgroup_shape::threads, 1)
    warpgroup_tokens_kernel(tile_weight_view w, T const* X, index_t tokens, device_matrix<Result> Y, float* partial) {
  int const lane = static_cast<int>(threadIdx.x % 32);
  int const blocks = static_cast<int>(w.blocks()), parts = static_cast<int>(gridDim.z),
            part = static_cast<int>(blockIdx.z);
  index_t const first_token = static_cast<index_t>(blockIdx.x) * warpgroup_tokens, left = tokens - first_token;
  int const count = static_cast<int>(left < warpgroup_tokens ? left : warpgroup_tokens);
  index_t const first_strip = first_strip_of_warp<Tiles>(blockIdx.y), last_strip = w.strips() - 1;
  T const* rows[fetched_tokens];
  rows_to_fetch_swizzled<T>(count, rows, [&](int i) { return X + (first_token + i) * w.columns; });
  float sums[Tiles][warpgroup_tokens / 8][4] = {};
  multiply_warpgroups<T, Kind, Tiles>(w, first_strip, static_cast<int>(static_cast<index_t>(blocks) * part / parts),
                                      static_cast<int>(static_cast<index_t>(blocks) * (part + 1) / parts), rows, sums);
#pragma unroll
  for (int r = 0; r < Tiles; ++r) {
    index_t const strip = first_strip + 4 * r;
    if (strip > last_strip) continue;
#pragma unroll
    for (int n = 0; n < warpgroup_tokens / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        tile_position const at = result_element(lane, e);
        index_t const token = first_token + n * tile::tokens + at.column, row = strip * tile::rows + at.row;
        if (token >= tokens) continue;
        if (parts == 1) {
          Y(token, row) = static_cast<Result>(sums[r][n][e]);
        } else {
          partial[(part * tokens + token) * w.rows + row] = sums[r][n][e];
        }
      }
  }
}

}  // namespace detail

/// to: [T, columns], X with each 64 columns in the order of the warpgroup kernels' steps. X: any layout.
template <half_precision T>
void order_for_warpgroups(context& on, device_matrix<T const> X, T* to) {
  launch(on.stream(), {dim3(blocks_for(X.extent(0))), 256, 0}, detail::order_columns<T>, X, takes_activations(X),
         reinterpret_cast<words4*>(to));
}

/// Where column `column` stands in that order.
[[nodiscard]] SLIMTRIM_HD constexpr index_t place_for_warpgroups(index_t column) {
  auto const at = place_of_column(static_cast<int>(column % tile::block_columns));
  return column / tile::block_columns * tile::block_columns + at.step * tile::depth + at.depth;
}

/// Y = X Wᵀ for any number of tokens, meant for more than 64. X: [T, in] in any layout; Y: [T, out]. Weights are
/// rounded to T with their scale, sums are float. Needs a device of compute capability 9.0 and code compiled for
/// sm_90a, else `error` or a stopped kernel. Scratch: a copy of X; parts * T * out floats where the grid is small.
/// Deterministic on one kind of device.
template <half_precision T, tile_kind Kind, class Result>
requires(Kind != tile_kind::sparse4) void warpgroup_tokens_product(context& on, tile_weight_view const& w,
                                                                   device_matrix<T const> X, device_matrix<Result> Y) {
  expects(on.compute_capability() == 90, "warpgroup_tokens_product", "compute capability: expected 9.0");
  index_t const tokens = X.extent(0);
  auto const ordered = on.scratch_for<T>(X.size());
  check_product_operands<T, Kind, Result>(w, device_matrix<T const>(ordered.data(), tokens, X.extent(1)), Y,
                                          "warpgroup_tokens_product");
  if (tokens == 0 || w.rows == 0) return;
  order_for_warpgroups<T>(on, X, ordered.data());
  index_t const down = ceil_div(tokens, warpgroup_tokens);
  auto const run = [&]<int Tiles>() {
    index_t const across = ceil_div(w.rows, 128 * Tiles);
    expects(across <= 65535, "warpgroup_tokens_product", "rows of the weight: expected at most 128 * 65535");
    int const parts = parts_of_columns(across * down, w.blocks(), on.multiprocessors() / 2);
    auto const partial = on.scratch_for<float>(parts > 1 ? parts * tokens * w.rows : 0);
    launch(on.stream(),
           {dim3(blocks_for(down), static_cast<unsigned>(across), static_cast<unsigned>(parts)),
            warpgroup_shape::threads, warpgroup_shape::shared_bytes},
           detail::warpgroup_tokens_kernel<T, Kind, Tiles, Result>, w, ordered.data(), tokens, Y, partial.data());
    if (parts > 1) for_each_element(on, tokens, w.rows, false, detail::add_parts<Result>{partial.data(), parts, Y});
  };
  // Tall tiles where they still fill the device.
  ceil_div(w.rows, index_t{256}) * down >= on.multiprocessors() ? run.template operator()<2>()
                                                                : run.template operator()<1>();
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
