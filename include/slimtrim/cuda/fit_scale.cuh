// Scales of groups searched on the device: slimtrim::fit_scale, 16 lanes a group.
//
// The lanes are those of the host's loop, and their sums are added in its order; the compiler may fuse a multiplication
// with an addition here and not there, so two candidates of nearly the same error may change places.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/slim/quantize/group.hpp>
#include <slimtrim/slim/quantize/scale_search.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// What is to be searched: as slimtrim::quantize_options.
struct scale_fit {
  uniform_grid grid{};
  index_t group = 128;  // columns; a last group may be shorter
  scale_rule rule = scale_rule::absmax;
  scale_type stored_as = scale_type::bfloat16;
  scale_search search{};
};

namespace detail {

inline constexpr int fit_lanes = 16, fit_held = 8;  // a group of up to 128 columns stays in registers

// This lane's share of a group: columns lane, lane + 16, ...
template <class T>
struct group_share {
  device_matrix<T const> W;
  device_vector<float const> weights;
  index_t row, start;
  int count, lane;
  float held[fit_held];

  __device__ void read() {
#pragma unroll
    for (int h = 0; h < fit_held; ++h) {
      int const i = lane + h * fit_lanes;
      held[h] = i < count ? static_cast<float>(W(row, start + i)) : 0.0F;
    }
  }
  // use(value, weight) for every column of the share, in ascending order.
  template <class F>
  __device__ __forceinline__ void each(F const& use) const {
    auto const weight = [&](int i) { return weights.data != nullptr ? weights(start + i) : 1.0F; };
#pragma unroll
    for (int h = 0; h < fit_held; ++h)
      if (lane + h * fit_lanes < count) use(held[h], weight(lane + h * fit_lanes));
    for (int i = lane + fit_held * fit_lanes; i < count; i += fit_lanes)
      use(static_cast<float>(W(row, start + i)), weight(i));
  }
};

[[nodiscard]] __device__ __forceinline__ float sum_of_share(float mine) {
  float total = 0;
  int const first = static_cast<int>(threadIdx.x % 32) / fit_lanes * fit_lanes;
  for (int l = 0; l < fit_lanes; ++l) total += shuffle(mine, first + l);
  return total;
}

template <class T>
[[nodiscard]] __device__ slimtrim::detail::fit_sums try_scale_on_device(uniform_grid const& g,
                                                                        group_share<T> const& share,
                                                                        scale_and_zero at) {
  float const inverse = 1.0F / at.scale, bottom = static_cast<float>(-at.zero),
              top = static_cast<float>(g.last_code() - at.zero);
  slimtrim::detail::fit_sums sums;
  share.each([&](float w, float weight) {
    float x = w * inverse;
    x = x < bottom ? bottom : x;
    x = x > top ? top : x;
    float const q = (x + 12582912.0F) - 12582912.0F;
    float const difference = w - q * at.scale, weighted_code = weight * q;
    sums.error += weight * difference * difference;
    sums.value_code += weighted_code * w;
    sums.code_code += weighted_code * q;
  });
  return {sum_of_share(sums.error), sum_of_share(sums.value_code), sum_of_share(sums.code_code)};
}

template <class T>
__global__ void __launch_bounds__(256)
    fit_scales_kernel(device_matrix<T const> W, scale_fit fit, device_vector<float const> weights,
                      device_matrix<float> scales, device_matrix<std::uint8_t> zeros, device_report* report) {
  index_t const groups = scales.extent(1),
                mine = static_cast<index_t>(blockIdx.x) * (256 / fit_lanes) + threadIdx.x / fit_lanes;
  bool const live = mine < groups * W.extent(0);
  group_share<T> share{W, weights, live ? mine / groups : 0, 0, 0, static_cast<int>(threadIdx.x % fit_lanes), {}};
  index_t const g = live ? mine - share.row * groups : 0;
  share.start = g * fit.group;
  index_t const rest = W.extent(1) - share.start;
  // All lanes of a warp take part in every exchange, so a group beyond the last one is an empty one.
  share.count = live ? static_cast<int>(rest < fit.group ? rest : fit.group) : 0;
  share.read();
  float lowest = 0, highest = 0;
  bool finite = true;
  share.each([&](float w, float) {
    finite = finite && w - w == 0;
    lowest = w < lowest ? w : lowest;
    highest = w > highest ? w : highest;
  });
  for (int mask = fit_lanes / 2; mask > 0; mask /= 2) {
    float const low = shuffle_xor(lowest, mask), high = shuffle_xor(highest, mask);
    lowest = low < lowest ? low : lowest;
    highest = high > highest ? high : highest;
    finite = (shuffle_xor(static_cast<int>(finite), mask) != 0) && finite;
  }
  if (!finite) {
    if (live && share.lane == 0)
      raise_to(&report->not_finite, static_cast<unsigned long long>(share.row * W.extent(1) + share.start) + 1);
    lowest = highest = 0;
  }
  scale_and_zero best = fit.grid.from_range(lowest, highest, fit.stored_as);
  if (fit.rule != scale_rule::absmax) {
    slimtrim::detail::fit_sums best_sums = try_scale_on_device(fit.grid, share, best);
    bool const searched = (lowest != 0 || highest != 0) && best_sums.error <= 3e38F;
    auto const consider = [&](scale_and_zero at) {
      slimtrim::detail::fit_sums const sums = try_scale_on_device(fit.grid, share, at);
      if (!searched || !(sums.error < best_sums.error)) return false;
      best = at;
      best_sums = sums;
      return true;
    };
    // Each lane works out one candidate's scale, in double; then all try them one after another.
    int const team = static_cast<int>(threadIdx.x % 32) / fit_lanes * fit_lanes;
    for (int first = 0; first < fit.search.candidates; first += fit_lanes) {
      double const step =
          fit.search.candidates > 1 ? static_cast<double>(first + share.lane) / (fit.search.candidates - 1) : 0.0;
      float const factor = static_cast<float>(fit.search.highest + (fit.search.lowest - fit.search.highest) * step);
      scale_and_zero const mine_of_lane = fit.grid.from_range(lowest * factor, highest * factor, fit.stored_as);
      for (int l = 0; l < fit_lanes && first + l < fit.search.candidates; ++l)
        consider({shuffle(mine_of_lane.scale, team + l), shuffle(mine_of_lane.zero, team + l)});
    }
    bool going = true;
    for (int i = 0; i < fit.search.refinements; ++i) {
      double const scale = best_sums.code_code > 0
                               ? static_cast<double>(best_sums.value_code) / static_cast<double>(best_sums.code_code)
                               : 0.0;
      going = going && scale > 0;
      bool const better =
          consider(going ? scale_and_zero{round_scale(scale, fit.stored_as, fit.grid.span_bits()), best.zero} : best);
      going = going && better;
    }
  }
  if (!live || share.lane != 0) return;
  scales(share.row, g) = best.scale;
  if (zeros.data != nullptr) zeros(share.row, g) = static_cast<std::uint8_t>(best.zero);
}

}  // namespace detail

/// scales, zeros (exactly where the grid has zero points): [rows, groups] in any layout, as slimtrim::fit_scale chooses
/// them for each row and group of W: [rows, columns] in float, bfloat16 or float16. weights: [columns] >= 0, or no data
/// for ones. A group with a NaN or infinity gets the scale 1 and is reported at the next context::synchronise. Reads W
/// once for groups of up to 128.
template <class T>
void fit_scales(context& on, device_matrix<T const> W, scale_fit const& fit, device_vector<float const> weights,
                device_matrix<float> scales, device_matrix<std::uint8_t> zeros) {
  fit.grid.check();
  expects(fit.group >= 1 && fit.group <= INT32_MAX, "cuda::fit_scales", "group: expected at least one column");
  expects_equal(scales.extent(0), W.extent(0), "cuda::fit_scales", "rows of scales");
  expects_equal(scales.extent(1), ceil_div(W.extent(1), fit.group), "cuda::fit_scales", "columns of scales");
  expects((zeros.data == nullptr) == fit.grid.symmetric, "cuda::fit_scales",
          "zeros: expected exactly for a grid with zero points");
  if (weights.data != nullptr) expects_equal(weights.extent(0), W.extent(1), "cuda::fit_scales", "length of weights");
  launch(on.stream(), {dim3(blocks_for(ceil_div(scales.size(), 256 / detail::fit_lanes))), 256, 0},
         detail::fit_scales_kernel<T>, W, fit,
         fit.rule == scale_rule::weighted ? weights : device_vector<float const>{}, scales, zeros, on.report());
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
