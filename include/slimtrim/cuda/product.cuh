// Y = X Wᵀ for any number of tokens: which kernel, from the shape alone; and tiles made on the device and taken apart
// again.
//
// | tokens       | kernel                                               | bound by          |
// |--------------|------------------------------------------------------|-------------------|
// | 1 .. 16      | few_tokens.cuh                                       | weight bandwidth  |
// | 17 .. 767    | many_tokens.cuh, or warpgroup_tokens.cuh on request  | tensor cores      |
// | 768 and more | weights expanded to 16 bits once, then cuBLAS        | cuBLAS            |
#pragma once

#include <slimtrim/cuda/blas.cuh>
#include <slimtrim/cuda/few_tokens.cuh>
#include <slimtrim/cuda/many_tokens.cuh>
#include <slimtrim/cuda/tile_pack.hpp>
#include <slimtrim/cuda/warpgroup_tokens.cuh>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// The token counts at which the kernels take turns.
struct product_limits {
  index_t few = 16;
  index_t many = 767;
  /// From here on, up to `many`, wgmma: only where the device is of compute capability 9.0 and the code compiled for
  /// sm_90a; not for sparse weights. Never, until a device has shown that it is right and where it is faster.
  index_t warpgroup = PTRDIFF_MAX;
};

namespace detail {

// One thread a lane of a tile.
template <class Source>
__global__ void __launch_bounds__(256, 1)
    pack_tile_lanes(Source from, tile_weight_view to, words4* words, std::uint16_t* scales, std::uint8_t* zeros) {
  index_t const at = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x, tile_number = at / 32;
  if (tile_number >= to.strips() * to.blocks()) return;
  pack_lane(from, to, tile_number / to.blocks(), tile_number % to.blocks(), static_cast<int>(at % 32), words, scales, zeros);
}

// A warp owns one tile and writes each of its rows' 64 columns as pairs.
template <half_precision T, tile_kind Kind>
__global__ void __launch_bounds__(256) expand_tile_lanes(tile_weight_view w, device_matrix<T> out) {
  index_t const number = static_cast<index_t>(blockIdx.x) * 8 + threadIdx.x / 32;
  if (number >= w.strips() * w.blocks()) return;
  int const lane = static_cast<int>(threadIdx.x % 32);
  index_t const strip = number / w.blocks(), block = number % w.blocks();
  lane_tile<Kind> mine;
  strip_reader<Kind>(w, strip, lane).load(static_cast<std::uint32_t>(block), mine);
  std::uint32_t raised[2];
  raised_zeros<T>(mine.zeros, raised);
  float scale[2] = {1, 1};
  if constexpr (has_codes(Kind)) scales_of(w.scale_kind, mine.scales, scale);
#pragma unroll
  for (int step = 0; step < tile_steps<Kind>; ++step) {
    std::uint32_t a[4];
    weight_registers<T, Kind>(mine, step, raised, a);
#pragma unroll
    for (int reg = 0; reg < 4; ++reg) {
      tile_position const at = weight_element(lane, reg, 0);
      if constexpr (Kind == tile_kind::sparse4) {
        int const chunk = lane % 4 + 4 * (reg / 2);
        auto const bits = place_of_sparse_bits(at.row, step, chunk);
        std::uint32_t const places = shuffle(mine.places, bits.lane) >> bits.shift;
        std::uint32_t const pair = round_pair<T>(static_cast<float>(element_of_pair<T>(a[reg], false)) * scale[reg % 2],
                                                 static_cast<float>(element_of_pair<T>(a[reg], true)) * scale[reg % 2]);
        std::uint32_t four[2] = {0, 0};
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          std::uint32_t const value = (places & 3U) == static_cast<std::uint32_t>(c)
                                          ? pair & 0xffffU
                                          : ((places >> 2 & 3U) == static_cast<std::uint32_t>(c) ? pair >> 16 : 0U);
          four[c / 2] |= value << (16 * (c % 2));
        }
        T* const to = &out(strip * tile::rows + at.row, block * tile::block_columns + 4 * group_of_chunk(step, chunk));
        reinterpret_cast<std::uint32_t*>(to)[0] = four[0];
        reinterpret_cast<std::uint32_t*>(to)[1] = four[1];
        continue;
      }
      index_t const row = strip * tile::rows + at.row, column = block * tile::block_columns + block_column(step, at.column);
      float const low = static_cast<float>(element_of_pair<T>(a[reg], false)) * scale[reg % 2];
      float const high = static_cast<float>(element_of_pair<T>(a[reg], true)) * scale[reg % 2];
      *reinterpret_cast<std::uint32_t*>(&out(row, column)) = round_pair<T>(low, high);
    }
  }
}

}  // namespace detail

/// Packs a source in device memory (code_rows, half_rows or fused_rows of them) into `to`, whose memory the caller made:
/// plan.words_needed() words, plan.scales_needed() scales and, with zero points, as many bytes. Once, when a model is loaded.
template <class Source>
void pack_tiles_on_device(context& on, Source const& from, tile_weight_view const& plan, words4* words, std::uint16_t* scales,
                          std::uint8_t* zeros) {
  index_t const lanes = plan.strips() * plan.blocks() * 32;
  launch(on.stream(), {dim3(blocks_for(ceil_div(lanes, 256))), 256, 0}, detail::pack_tile_lanes<Source>, from, plan, words, scales,
         zeros);
}

/// out = the elements of w, rounded to T. out: [rows, columns], rows contiguous and an even number of elements apart. One read
/// of w, one write of out.
template <half_precision T, tile_kind Kind>
void expand_tiles(context& on, tile_weight_view const& w, device_matrix<T> out) {
  expects_equal(out.extent(0), w.rows, "cuda::expand_tiles", "rows");
  expects_equal(out.extent(1), w.columns, "cuda::expand_tiles", "columns");
  expects(out.stride(1) == 1 && out.stride(0) % 2 == 0 && reinterpret_cast<std::uintptr_t>(out.data) % 4 == 0, "cuda::expand_tiles",
          "out: expected contiguous rows of aligned pairs");
  launch(on.stream(), {dim3(blocks_for(ceil_div(w.strips() * w.blocks(), 8))), 256, 0}, detail::expand_tile_lanes<T, Kind>, w, out);
}

/// Y = X Wᵀ. X: [T, in] in 16 bits; Y: [T, out]. Up to `limits.many` tokens as few_tokens_product and many_tokens_product;
/// beyond, the weight is rounded to T as a whole in scratch of 2 * rows * columns bytes, and multiplied by cuBLAS. X whose
/// rows are not aligned to 16 bytes is copied first. Deterministic on one kind of device.
template <half_precision T, tile_kind Kind, class Result>
void product(context& on, tile_weight_view const& w, device_matrix<T const> X, device_matrix<Result> Y, product_limits limits = {}) {
  check_tile_weight(w);
  expects_equal(X.extent(1), w.columns, "cuda::product", "columns of the activations");
  expects_equal(Y.extent(0), X.extent(0), "cuda::product", "rows of the result");
  expects_equal(Y.extent(1), w.rows, "cuda::product", "columns of the result");
  index_t const tokens = X.extent(0);
  if (tokens == 0 || w.rows == 0) return;
  if (tokens > limits.many) {
    static_assert(std::is_same_v<Result, float>, "cuda::product: the result is float");
    auto const dense = on.scratch_for<T>(w.rows * w.columns);
    device_matrix<T> const expanded(dense.data(), w.rows, w.columns);
    expand_tiles<T, Kind>(on, w, expanded);
    gemm<T, Result>(on, Result{1}, X, transposed(as_const(expanded)), Result{0}, Y);
    return;
  }
  if constexpr (Kind != tile_kind::sparse4) {
    if (tokens > limits.few && tokens >= limits.warpgroup)
      return warpgroup_tokens_product<T, Kind, Result>(on, w, X, Y);
  }
  if (!takes_activations(X)) {
    auto const copy = on.scratch_for<T>(tokens * w.columns);
    device_matrix<T> const aligned(copy.data(), tokens, w.columns);
    copy_elements<T, T>(on, X, aligned);
    product<T, Kind, Result>(on, w, as_const(aligned), Y, limits);
    return;
  }
  tokens <= limits.few ? few_tokens_product<T, Kind, Result>(on, w, X, Y) : many_tokens_product<T, Kind, Result>(on, w, X, Y);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
