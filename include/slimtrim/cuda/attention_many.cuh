// Causal attention for many new tokens a sequence, on the tensor cores, with the softmax formed tile by tile (Milakov
// and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135): no matrix of scores is ever stored.
//
// A block of 4 warps owns 64 queries of one head, a warp 16 of them. Keys and values come in tiles of 64 positions
// through shared memory: while scores are made of one tile of keys, its values arrive, and while these are used, the
// next keys. The scores of a warp are already in the layout of the next product's operand A, so weights never leave the
// registers.
#pragma once

#include <slimtrim/cuda/arch/sm80.cuh>
#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/rotary.cuh>

#include <cmath>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// How the kernel is shaped.
struct attention_many_shape {
  static constexpr int warps = 4;
  static constexpr int threads = 32 * warps;
  static constexpr int queries = 16 * warps;
  static constexpr int keys = 64;
  /// Elements between rows of a tile: no two rows of a quarter warp meet in a bank.
  [[nodiscard]] SLIMTRIM_HD static constexpr int pitch(int dim) { return dim + 8; }
  [[nodiscard]] static constexpr std::size_t shared_bytes(int dim) {
    return std::size_t{4} * keys * static_cast<std::size_t>(pitch(dim));
  }
};

namespace detail {

// Starts the copies of 64 rows of keys or values; rows and columns that do not exist become zero.
template <half_precision T, int Dim>
__device__ __forceinline__ void fetch_rows(T const* from, index_t width, int rows, int dim, T* to) {
  constexpr int chunks = Dim / 8, pitch = attention_many_shape::pitch(Dim);
  for (int i = static_cast<int>(threadIdx.x); i < attention_many_shape::keys * chunks;
       i += attention_many_shape::threads) {
    int const row = i / chunks, column = i % chunks * 8;
    bool const there = row < rows && column < dim;
    copy_async(to + row * pitch + column, there ? static_cast<void const*>(from + row * width + column) : nullptr,
               there);
  }
  commit_copies();
}

// Grid: 64 queries (the last ones first, for they see the most keys), head, sequence.
template <half_precision T, int Dim>
__global__ void __launch_bounds__(attention_many_shape::threads)
    attention_many_kernel(head_layout layout, device_matrix<T const> Q, cache_view<T> cache, sequence_rows of,
                          float scale, device_matrix<T> Z) {
  constexpr int keys = attention_many_shape::keys, pitch = attention_many_shape::pitch(Dim), key_tiles = keys / 8,
                dim_tiles = Dim / 8;
  auto* const key_tile = reinterpret_cast<T*>(shared_memory());
  T* const value_tile = key_tile + keys * pitch;
  int const lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32), g = lane / 4,
            t = lane % 4;
  int const rows = static_cast<int>(of.rows), dim = static_cast<int>(layout.head_dim);
  index_t const sequence = blockIdx.z, head = blockIdx.y;
  int const block_first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * attention_many_shape::queries,
            first = block_first + 16 * warp;
  int const before = of.first[sequence];
  int const last_row =
      block_first + attention_many_shape::queries < rows ? block_first + attention_many_shape::queries : rows;
  int const held = before + last_row < cache.capacity ? before + last_row : static_cast<int>(cache.capacity);
  index_t const key_column = head / (layout.heads / layout.key_value_heads) * layout.head_dim;
  T const* const all_keys = cache.keys + sequence * cache.capacity * cache.width + key_column;
  T const* const all_values = cache.values + sequence * cache.capacity * cache.width + key_column;
  fetch_rows<T, Dim>(all_keys, cache.width, held, dim, key_tile);

  // Queries as operand A, for as long as the block lives.
  std::uint32_t q[Dim / 16][4];
#pragma unroll
  for (int d = 0; d < Dim / 16; ++d)
#pragma unroll
    for (int reg = 0; reg < 4; ++reg) {
      int const row = first + g + 8 * (reg % 2), column = 16 * d + 2 * t + 8 * (reg / 2);
      q[d][reg] = row < rows && column < dim ? *reinterpret_cast<std::uint32_t const*>(
                                                   Q.data + (sequence * rows + row) * Q.stride(0) + head * dim + column)
                                             : 0U;
    }
  float sums[dim_tiles][4] = {};
  float largest[2] = {-INFINITY, -INFINITY}, total[2] = {};
  for (int from = 0; from < held; from += keys) {
    fetch_rows<T, Dim>(all_values + from * cache.width, cache.width, held - from, dim, value_tile);
    wait_for_copies<1>();
    sync_block();
    float scores[key_tiles][4] = {};
#pragma unroll
    for (int d = 0; d < Dim / 16; ++d)
#pragma unroll
      for (int n = 0; n < key_tiles; ++n) {
        T const* const k = key_tile + (8 * n + g) * pitch + 16 * d + 2 * t;
        std::uint32_t const b[2] = {*reinterpret_cast<std::uint32_t const*>(k),
                                    *reinterpret_cast<std::uint32_t const*>(k + 8)};
        multiply_tile<T>(scores[n], q[d], b);
      }
    sync_block();
    if (from + keys < held) {
      fetch_rows<T, Dim>(all_keys + (from + keys) * cache.width, cache.width, held - from - keys, dim, key_tile);
    } else {
      commit_copies();
    }
    // Position before + row sees positions up to itself.
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      int const sees = before + first + g + 8 * upper - from;
      float top = largest[upper];
#pragma unroll
      for (int n = 0; n < key_tiles; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& s = scores[n][2 * upper + e];
          s = 8 * n + 2 * t + e <= sees ? s * scale : -INFINITY;
          top = fmaxf(top, s);
        }
      top = fmaxf(top, shuffle_xor(top, 1));
      top = fmaxf(top, shuffle_xor(top, 2));
      float const shrink = exp2f(largest[upper] - top);
      largest[upper] = top;
      float sum = 0;
#pragma unroll
      for (int n = 0; n < key_tiles; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& s = scores[n][2 * upper + e];
          s = exp2f(s - top);
          sum += s;
        }
      total[upper] = total[upper] * shrink + sum;
#pragma unroll
      for (int n = 0; n < dim_tiles; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) sums[n][2 * upper + e] *= shrink;
    }
    wait_for_copies<1>();
    sync_block();
#pragma unroll
    for (int k = 0; k < key_tiles / 2; ++k) {
      std::uint32_t const a[4] = {round_pair<T>(scores[2 * k][0], scores[2 * k][1]),
                                  round_pair<T>(scores[2 * k][2], scores[2 * k][3]),
                                  round_pair<T>(scores[2 * k + 1][0], scores[2 * k + 1][1]),
                                  round_pair<T>(scores[2 * k + 1][2], scores[2 * k + 1][3])};
#pragma unroll
      for (int n = 0; n < dim_tiles; n += 2) {
        std::uint32_t v[4];
        load_transposed(v, value_tile + (16 * k + lane % 16) * pitch + 8 * n + lane / 16 * 8);
        std::uint32_t const low[2] = {v[0], v[1]}, high[2] = {v[2], v[3]};
        multiply_tile<T>(sums[n], a, low);
        multiply_tile<T>(sums[n + 1], a, high);
      }
    }
    sync_block();
  }
#pragma unroll
  for (int upper = 0; upper < 2; ++upper) {
    float sum = total[upper];
    sum += shuffle_xor(sum, 1);
    sum += shuffle_xor(sum, 2);
    int const row = first + g + 8 * upper;
    if (row >= rows) continue;
    float const inverse = 1.0F / sum;
    T* const z = Z.data + (sequence * rows + row) * Z.stride(0);
#pragma unroll
    for (int n = 0; n < dim_tiles; ++n) {
      int const column = 8 * n + 2 * t;
      if (column < dim)
        *reinterpret_cast<std::uint32_t*>(z + head * dim + column) =
            round_pair<T>(sums[n][2 * upper] * inverse, sums[n][2 * upper + 1] * inverse);
    }
    if (head == 0)
      for (index_t j = layout.heads * layout.head_dim + t; j < Z.extent(1); j += 4) z[j] = T(0.0F);
  }
}

}  // namespace detail

/// Z[r, h] = sum_j softmax_j(Q[r, h] . K[j, h / group] / sqrt(head_dim)) V[j, h / group] for every row r of every
/// sequence, j = 0 .. the row's position, whose keys and values are in the cache already.
///
/// Q, Z: [sequences * of.rows, >= heads * head_dim], 16-byte aligned rows. Scores and sums in float, weights rounded to
/// T before they meet the values; tiles of 64 positions in order. Deterministic. head_dim: a multiple of 8 up to 128.
/// Cost: 4 operations for each row, visible position, head and head_dim; keys and values are read once for every 64
/// rows, from L2 after the first.
template <half_precision T>
void attention_many(context& on, head_layout const& layout, device_matrix<T const> Q, cache_view<T> cache,
                    sequence_rows of, device_matrix<T> Z) {
  using shape = attention_many_shape;
  expects(layout.head_dim % 8 == 0 && layout.head_dim <= 128, "cuda::attention_many",
          "head_dim: expected a multiple of 8 up to 128");
  expects(of.rows > 0 && Q.extent(0) % of.rows == 0 && Z.extent(0) == Q.extent(0), "cuda::attention_many",
          "rows: expected whole sequences");
  expects(Q.stride(1) == 1 && Z.stride(1) == 1 && Q.stride(0) % 2 == 0 && Z.stride(0) % 2 == 0 && cache.width % 8 == 0,
          "cuda::attention_many", "Q, Z: expected contiguous rows");
  index_t const sequences = Q.extent(0) / of.rows;
  expects(sequences <= 65535, "cuda::attention_many", "sequences: expected at most 65535");
  if (Q.extent(0) == 0) return;
  // Powers of two instead of e.
  auto const scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(layout.head_dim)));
  auto const run = [&]<int Dim>() {
    launch(on.stream(),
           {dim3(blocks_for(ceil_div(of.rows, shape::queries)), blocks_for(layout.heads), blocks_for(sequences)),
            shape::threads, shape::shared_bytes(Dim)},
           detail::attention_many_kernel<T, Dim>, layout, Q, cache, of, scale, Z);
  };
  layout.head_dim <= 64 ? run.template operator()<64>() : run.template operator()<128>();
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
