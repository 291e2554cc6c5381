// Round-to-nearest group quantisation and packing in one read of the weights: slimtrim::rtn with scale_rule::absmax, the
// same codes and scales bit for bit, since both run the same functions of the grid.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/row_chunk.cuh>
#include <slimtrim/slim/quantize/grid.hpp>
#include <slimtrim/slim/quantize/scale.hpp>
#include <slimtrim/tensor/quantized_view.hpp>

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

// 16 lanes own one group of one row; a lane takes 8 columns at a time, which are one word of codes.
inline constexpr int quantise_lanes = 16;

template <class T>
__global__ void __launch_bounds__(256) quantise_groups(device_matrix<T const> W, bool wide, uniform_grid grid, int group, scale_type stored_as,
                                                       quantised_outputs out, device_report* report) {
  int const lane = static_cast<int>(threadIdx.x % quantise_lanes);
  index_t const groups = out.scales.extent(1), teams = 256 / quantise_lanes;
  index_t const mine = static_cast<index_t>(blockIdx.x) * teams + threadIdx.x / quantise_lanes;
  bool const live = mine < groups * W.extent(0);
  index_t const row = live ? mine / groups : 0, g = live ? mine - row * groups : 0;
  float lowest = 0, highest = 0;
  bool finite = true;
  float w[chunk_elements] = {};
  for (int c = 8 * lane; c < group && live; c += 8 * quantise_lanes) {
    read_chunk(W, row, g * group + c, wide, 0.0F, w);
    for (float const value : w) {
      finite = finite && value - value == 0;
      lowest = value < lowest ? value : lowest;
      highest = value > highest ? value : highest;
    }
  }
  for (int mask = quantise_lanes / 2; mask > 0; mask /= 2) {
    float const low = shuffle_xor(lowest, mask), high = shuffle_xor(highest, mask);
    lowest = low < lowest ? low : lowest;
    highest = high > highest ? high : highest;
    finite = (shuffle_xor(static_cast<int>(finite), mask) != 0) && finite;
  }
  if (!live) return;
  if (!finite) {
    if (lane == 0) raise_to(&report->not_finite, static_cast<unsigned long long>(row * W.extent(1) + g * group) + 1);
    lowest = highest = 0;
  }
  if (grid.symmetric) {
    highest = highest > -lowest ? highest : -lowest;
    lowest = 0;
  }
  scale_and_zero const at = grid.from_range(lowest, highest, stored_as);
  if (lane == 0) {
    out.scales(row, g) = at.scale;
    if (out.zeros.data != nullptr) out.zeros(row, g) = static_cast<std::uint8_t>(at.zero);
  }
  for (int c = 8 * lane; c < group; c += 8 * quantise_lanes) {
    // A group of up to 128 columns is still in registers.
    if (group > 8 * quantise_lanes) read_chunk(W, row, g * group + c, wide, 0.0F, w);
    std::uint32_t word = 0;
    for (int i = 0; i < 8; ++i) word |= grid.encode(finite ? w[i] : 0.0F, at) << (4 * i);
    out.words(row, (g * group + c) / 8) = word;
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
  launch(on.stream(), {dim3(blocks_for(ceil_div(groups, 256 / detail::quantise_lanes))), 256, 0}, detail::quantise_groups<T>, W, reads_chunks(W), grid,
         static_cast<int>(group), stored_as, out, on.report());
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
