// Round-to-nearest group quantisation and packing in one read of the weights: slimtrim::rtn with scale_rule::absmax, the
// same codes and scales bit for bit, since both run the same functions of the grid.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/row_chunk.cuh>
#include <slimtrim/slim/quantize/grid.hpp>
#include <slimtrim/slim/quantize/scale.hpp>
#include <slimtrim/tensor/quantized_view.hpp>

#include <cmath>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Where `quantise` writes: words [rows, columns / 8], scales and zeros [rows, columns / group]; no zeros: symmetric grid.
struct quantised_outputs {
  device_matrix<std::uint32_t> words{};
  device_matrix<float> scales{};
  device_matrix<std::uint8_t> zeros{};
};

namespace detail {

// Four lanes own one group of one row; a lane takes 8 columns at a time, which are one word of codes. So the scale, a division in
// double, is worked out once for 32 weights of a lane where groups have 128.
inline constexpr int quantise_lanes = 4;
inline constexpr int quantise_held = 4;  // chunks that a lane keeps between the two passes

// Divides by one scale as division rounds, without its forty instructions. With y = 1 / s rounded, q + (w - q s) y rounds as w / s
// does (the proof is at divisor::by_inverse of simd/target/quantize.hpp) for scales in 2^-100 .. 2^100; any other is brought
// there by a power of two, together with what it divides.
struct scale_divisor {
  float scale, inverse, factor;

  SLIMTRIM_HD explicit scale_divisor(float value) : factor(value < 0x1p-100F ? 0x1p64F : (value > 0x1p100F ? 0x1p-64F : 1.0F)) {
    scale = value * factor;
    inverse = 1.0F / scale;
  }
  [[nodiscard]] SLIMTRIM_HD float divide(float w) const {
    float const q = w * inverse;
    return std::fma(std::fma(q, -scale, w), inverse, q);
  }
};

// What a group's elements say of its range: the largest magnitude as bits, where NaN and infinity come out on top.
struct range_of_lane {
  std::uint32_t largest = 0;
  float lowest = 0, highest = 0;

  template <bool Symmetric>
  __device__ __forceinline__ void meet(float value) {
    std::uint32_t const magnitude = bits_as<std::uint32_t>(value) & 0x7fffffffU;
    largest = magnitude > largest ? magnitude : largest;
    if constexpr (!Symmetric) {
      lowest = std::fmin(value, lowest);
      highest = std::fmax(value, highest);
    }
  }
  template <bool Symmetric>
  __device__ __forceinline__ void gather() {
#pragma unroll
    for (int mask = quantise_lanes / 2; mask > 0; mask /= 2) {
      std::uint32_t const other = shuffle_xor(largest, mask);
      largest = other > largest ? other : largest;
      if constexpr (!Symmetric) {
        float const low = shuffle_xor(lowest, mask), high = shuffle_xor(highest, mask);
        lowest = std::fmin(low, lowest);
        highest = std::fmax(high, highest);
      }
    }
    if constexpr (Symmetric) highest = bits_as<float>(largest);
  }
};

// Eight codes, as uniform_grid::encode makes each. shift: zero point - middle, 0 for a symmetric grid.
template <bool Symmetric>
[[nodiscard]] __device__ __forceinline__ std::uint32_t encode_chunk(scale_divisor const& by, float shift,
                                                                    float (&w)[chunk_elements]) {
  if (by.factor != 1.0F)
#pragma unroll
    for (int i = 0; i < chunk_elements; ++i) w[i] *= by.factor;
  std::uint32_t word = 0;
#pragma unroll
  for (int i = 0; i < chunk_elements; ++i) {
    float x = by.divide(w[i]);
    if constexpr (!Symmetric) x += shift;
    x = std::fmin(std::fmax(x, -8.0F), 7.0F);
    // 1.5 * 2^23 leaves the nearest integer in the low bits; 8 more, which is even, makes it the code.
    word = and_or(bits_as<std::uint32_t>(x + 12582920.0F) << (4 * i), 15U << (4 * i), word);
  }
  return word;
}

template <class T, bool Wide, bool Symmetric>
__global__ void __launch_bounds__(256) quantise_groups(device_matrix<T const> W, uniform_grid grid, int group, scale_type stored_as,
                                                       quantised_outputs out, device_report* report) {
  constexpr int step = chunk_elements * quantise_lanes;
  int const lane = static_cast<int>(threadIdx.x % quantise_lanes);
  index_t const groups = out.scales.extent(1), teams = 256 / quantise_lanes;
  index_t const mine = static_cast<index_t>(blockIdx.x) * teams + threadIdx.x / quantise_lanes;
  bool const live = mine < groups * W.extent(0);
  index_t const row = live ? mine / groups : 0, g = live ? mine - row * groups : 0, begin = g * group + chunk_elements * lane;
  int const chunks = live ? (group - chunk_elements * lane + step - 1) / step : 0;
  range_of_lane range;
  float w[quantise_held][chunk_elements] = {};
#pragma unroll
  for (int c = 0; c < quantise_held; ++c) {
    if (c >= chunks) continue;
    read_chunk(W, row, begin + c * step, Wide, 0.0F, w[c]);
#pragma unroll
    for (int i = 0; i < chunk_elements; ++i) range.template meet<Symmetric>(w[c][i]);
  }
  for (int c = quantise_held; c < chunks; ++c) {
    float more[chunk_elements];
    read_chunk(W, row, begin + c * step, Wide, 0.0F, more);
#pragma unroll
    for (int i = 0; i < chunk_elements; ++i) range.template meet<Symmetric>(more[i]);
  }
  range.template gather<Symmetric>();
  if (!live) return;
  bool const finite = range.largest < 0x7f800000U;
  if (!finite) {
    if (lane == 0) raise_to(&report->not_finite, static_cast<unsigned long long>(row * W.extent(1) + g * group) + 1);
    range.lowest = range.highest = 0;
  }
  scale_and_zero const at = grid.from_range(range.lowest, range.highest, stored_as);
  if (lane == 0) {
    out.scales(row, g) = at.scale;
    if (!Symmetric) out.zeros(row, g) = static_cast<std::uint8_t>(at.zero);
  }
  scale_divisor const by(at.scale);
  float const shift = static_cast<float>(at.zero - grid.middle());
  std::uint32_t* const words = &out.words(row, static_cast<index_t>(static_cast<std::uint32_t>(g * (group / chunk_elements)) + lane));
  index_t const next = quantise_lanes * out.words.stride(1);
  std::uint32_t const zeros = static_cast<std::uint32_t>(at.zero) * 0x11111111U;  // what zeros become
#pragma unroll
  for (int c = 0; c < quantise_held; ++c)
    if (c < chunks) words[c * next] = finite ? encode_chunk<Symmetric>(by, shift, w[c]) : zeros;
  for (int c = quantise_held; c < chunks; ++c) {
    float more[chunk_elements];
    read_chunk(W, row, begin + c * step, Wide, 0.0F, more);
    words[c * next] = finite ? encode_chunk<Symmetric>(by, shift, more) : zeros;
  }
}

}  // namespace detail

/// 4-bit codes, scales and zero points of W: [rows, columns] in float, bfloat16 or float16; the layout of quantized_view.
/// `group` divides the columns and is a multiple of 8. A group with a NaN or infinity becomes zeros and is reported (by the
/// number of its first element) at the next context::synchronise. Reads W once; groups of more than 128 columns a second time, from L1.
template <class T>
void quantise(context& on, device_matrix<T const> W, uniform_grid const& grid, index_t group, scale_type stored_as,
              quantised_outputs const& out) {
  grid.check();
  expects_equal(grid.bits, 4, "cuda::quantise", "bits");
  expects(group > 0 && group % 8 == 0 && W.extent(1) % group == 0, "cuda::quantise",
          "group: expected a multiple of 8 that divides the columns");
  expects_equal(out.words.extent(0), W.extent(0), "cuda::quantise", "rows of words");
  expects_equal(out.words.extent(1), W.extent(1) / 8, "cuda::quantise", "columns of words");
  expects_equal(out.scales.extent(0), W.extent(0), "cuda::quantise", "rows of scales");
  expects_equal(out.scales.extent(1), W.extent(1) / group, "cuda::quantise", "columns of scales");
  expects((out.zeros.data == nullptr) == grid.symmetric, "cuda::quantise", "zeros: expected exactly for a grid with zero points");
  index_t const groups = W.extent(0) * out.scales.extent(1);
  auto const run = [&](auto kernel) {
    launch(on.stream(), {dim3(blocks_for(ceil_div(groups, 256 / detail::quantise_lanes))), 256, 0}, kernel, W, grid,
           static_cast<int>(group), stored_as, out, on.report());
  };
  if (reads_chunks(W))
    grid.symmetric ? run(detail::quantise_groups<T, true, true>) : run(detail::quantise_groups<T, true, false>);
  else
    grid.symmetric ? run(detail::quantise_groups<T, false, true>) : run(detail::quantise_groups<T, false, false>);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
