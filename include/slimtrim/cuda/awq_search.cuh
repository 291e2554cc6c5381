// The search for AWQ's channel scales on the device, errors in Gram form: a candidate costs one pass that scales,
// rounds and leaves the error in weight space, and one product with the Hessian.
#pragma once

#include <slimtrim/cuda/fit_scale.cuh>
#include <slimtrim/cuda/hessian.cuh>
#include <slimtrim/cuda/rows.cuh>
#include <slimtrim/slim/quantize/awq.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// One matrix among those that read the same input, with the Hessian of the tokens that reach it.
template <class T>
struct awq_member {
  device_matrix<T const> weight{};
  device_matrix<float const> hessian{};
};

namespace detail {

// largest(i, g) = max |W| of the group.
template <class T>
__global__ void __launch_bounds__(256)
    largest_of_groups(device_matrix<T const> W, index_t group, device_matrix<float> largest) {
  index_t const groups = largest.extent(1),
                mine = static_cast<index_t>(blockIdx.x) * (256 / fit_lanes) + threadIdx.x / fit_lanes;
  bool const live = mine < groups * W.extent(0);
  index_t const row = live ? mine / groups : 0, g = live ? mine - row * groups : 0, rest = W.extent(1) - g * group;
  index_t const count = live ? (rest < group ? rest : group) : 0;
  float most = 0;
  for (index_t i = threadIdx.x % fit_lanes; i < count; i += fit_lanes) {
    float const value = static_cast<float>(W(row, g * group + i)), size = value < 0 ? -value : value;
    most = size > most ? size : most;
  }
  for (int mask = fit_lanes / 2; mask > 0; mask /= 2) {
    float const other = shuffle_xor(most, mask);
    most = other > most ? other : most;
  }
  if (live && threadIdx.x % fit_lanes == 0) largest(row, g) = most;
}

// A thread adds |w| / largest of one column over one panel of rows.
template <class T>
__global__ void __launch_bounds__(256)
    magnitude_panels(device_matrix<T const> W, index_t group, device_matrix<float const> largest, double* sums) {
  index_t const j = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x, m = W.extent(1);
  if (j >= m) return;
  index_t const first = static_cast<index_t>(blockIdx.y) * rows_a_column_panel;
  index_t const last = first + rows_a_column_panel < W.extent(0) ? first + rows_a_column_panel : W.extent(0);
  double sum = 0;
  for (index_t i = first; i < last; ++i) {
    double const most = static_cast<double>(largest(i, j / group)),
                 value = static_cast<double>(static_cast<float>(W(i, j)));
    sum += most > 0 ? (value < 0 ? -value : value) / most : 0.0;
  }
  sums[blockIdx.y * m + j] = sum;
}

// error(i, j) = Q(W diag(s)) / s - W, 16 lanes a group.
template <class T>
__global__ void __launch_bounds__(256) scaled_rounding_errors(device_matrix<T const> W, device_vector<float const> s,
                                                              scale_fit fit, device_matrix<float> error) {
  index_t const groups = ceil_div(W.extent(1), fit.group),
                mine = static_cast<index_t>(blockIdx.x) * (256 / fit_lanes) + threadIdx.x / fit_lanes;
  bool const live = mine < groups * W.extent(0);
  index_t const row = live ? mine / groups : 0, g = live ? mine - row * groups : 0, start = g * fit.group,
                rest = W.extent(1) - start;
  int const count = live ? static_cast<int>(rest < fit.group ? rest : fit.group) : 0,
            lane = static_cast<int>(threadIdx.x % fit_lanes);
  auto const scaled = [&](int i) { return static_cast<float>(W(row, start + i)) * s(start + i); };
  float lowest = 0, highest = 0;
  for (int i = lane; i < count; i += fit_lanes) {
    float const value = scaled(i);
    lowest = value < lowest ? value : lowest;
    highest = value > highest ? value : highest;
  }
  for (int mask = fit_lanes / 2; mask > 0; mask /= 2) {
    float const low = shuffle_xor(lowest, mask), high = shuffle_xor(highest, mask);
    lowest = low < lowest ? low : lowest;
    highest = high > highest ? high : highest;
  }
  scale_and_zero const at = fit.grid.from_range(lowest, highest, fit.stored_as);
  for (int i = lane; i < count; i += fit_lanes)
    error(row, start + i) =
        fit.grid.decode(fit.grid.encode(scaled(i), at), at) / s(start + i) - static_cast<float>(W(row, start + i));
}

template <class T>
void expect_finite(context& on, device_matrix<T const> W, char const* where) {
  if (index_t const at = first_not_finite<T>(on, W); at >= 0)
    throw input_error(std::string(where) + ": W[" + std::to_string(at / W.extent(1)) + ", " +
                      std::to_string(at % W.extent(1)) + "]: expected a finite value");
}

// tr(dW H dWᵀ) for dW = Q(W diag(s)) diag(1/s) - W, 2048 rows at a time.
template <class T>
double scaled_rtn_error(context& on, awq_member<T> const& member, device_vector<float const> s, scale_fit const& fit,
                        float_precision precision) {
  constexpr index_t strip = 2048;
  index_t const n = member.weight.extent(0), c = member.weight.extent(1), most = n < strip ? n : strip;
  auto const difference = on.scratch_for<float>(most * c), product = on.scratch_for<float>(most * c),
             dots = on.scratch_for<float>(n);
  for (index_t first = 0; first < n; first += strip) {
    index_t const height = n - first < strip ? n - first : strip;
    device_matrix<float> const D(difference.data(), height, c), P(product.data(), height, c);
    index_t const groups = height * ceil_div(c, fit.group);
    launch(on.stream(), {dim3(blocks_for(ceil_div(groups, 256 / fit_lanes))), 256, 0}, scaled_rounding_errors<T>,
           slimtrim::rows(member.weight, first, height), s, fit, D);
    gemm<float, float>(on, 1.0F, as_const(D), member.hessian, 0.0F, P, precision);
    row_dots<float>(on, as_const(D), as_const(P), device_vector<float>(dots.data() + first, height));
  }
  std::vector<float> found(static_cast<std::size_t>(n));
  copy_to_host(on.stream(), dots.data(), n, found.data());
  double total = 0;
  for (float const one : found) total += static_cast<double>(one);
  return total;
}

}  // namespace detail

/// slimtrim::search_awq_scales for members in device memory, with the options' grid and groups for all of them. The
/// candidates are those of the host; their errors are float products, on tensor cores where `precision` says so, which
/// only matters between candidates that are nearly as good. One scale a matrix is an `error`. Cost (ratios + 1) out in²
/// multiply-adds a member; scratch 4096 rows.
template <class T>
[[nodiscard]] awq_scales search_awq_scales(context& on, std::vector<awq_member<T>> const& members,
                                           awq_options const& options = {}, std::vector<index_t> const& tied = {},
                                           float_precision precision = float_precision::single) {
  awq_scales best;
  if (members.empty()) return best;
  expects(options.groups.kind != group_kind::tensor, "cuda::search_awq_scales",
          "one scale for a whole matrix is not supported on the device");
  index_t const c = members.front().weight.extent(1), group = options.groups.block_columns(c);
  auto const width = static_cast<std::size_t>(c);
  if (!tied.empty())
    expects_equal(static_cast<long long>(tied.size()), c, "cuda::search_awq_scales", "ties of channels");
  scale_fit const fit{options.grid, group, scale_rule::absmax, options.scales_stored_as, {}};
  std::vector<double> activity(width, 0.0), magnitude(width, 0.0), sums(width);
  std::vector<awq_member<T>> used;
  double rows_seen = 0;
  for (auto const& member : members) {
    index_t const n = member.weight.extent(0);
    expects_equal(member.weight.extent(1), c, "cuda::search_awq_scales", "inputs of a member");
    expects_equal(member.hessian.extent(0), c, "cuda::search_awq_scales", "rows of a Hessian");
    expects_equal(member.hessian.extent(1), c, "cuda::search_awq_scales", "columns of a Hessian");
    detail::expect_finite<T>(on, member.weight, "cuda::search_awq_scales");
    if (first_not_finite<float>(on, member.hessian) >= 0) continue;
    used.push_back(member);
    if (n == 0) continue;
    auto const diagonal_values = download_diagonal(on, member.hessian);
    for (std::size_t j = 0; j < width; ++j) activity[j] += std::max(0.0, static_cast<double>(diagonal_values[j]));
    index_t const groups = ceil_div(c, group), panels = ceil_div(n, detail::rows_a_column_panel);
    expects(panels <= 65535, "cuda::search_awq_scales", "rows: expected at most 512 * 65535");
    auto const largest = on.scratch_for<float>(n * groups);
    auto const partial = on.scratch_for<double>((panels + 1) * c);
    device_matrix<float> const by_group(largest.data(), n, groups);
    launch(on.stream(), {dim3(blocks_for(ceil_div(n * groups, 256 / detail::fit_lanes))), 256, 0},
           detail::largest_of_groups<T>, member.weight, group, by_group);
    unsigned const across = blocks_for(ceil_div(c, 256));
    launch(on.stream(), {dim3(across, static_cast<unsigned>(panels)), 256, 0}, detail::magnitude_panels<T>,
           member.weight, group, as_const(by_group), partial.data());
    device_vector<double> const total(partial.data() + panels * c, c);
    launch(on.stream(), {dim3(across), 256, 0}, detail::add_column_panels<double>, partial.data(), panels, total);
    copy_to_host(on.stream(), total.data, c, sums.data());
    for (std::size_t j = 0; j < width; ++j) magnitude[j] += sums[j];
    rows_seen += static_cast<double>(n);
  }
  best.scales.assign(width, 1.0F);
  if (used.empty() || !(rows_seen > 0)) return best;
  slimtrim::detail::average_tied(tied, activity);
  slimtrim::detail::average_tied(tied, magnitude);
  double mean = 0;
  for (double const a : activity) mean += a / static_cast<double>(width);
  for (std::size_t j = 0; j < width; ++j) {
    activity[j] = mean > 0 ? std::sqrt(activity[j] / mean) : 0.0;
    magnitude[j] /= rows_seen;
  }
  auto const s = on.scratch_for<float>(c);
  auto const error_of = [&](std::vector<float> const& scales) {
    copy_to_device(on.stream(), scales.data(), c, s.data());
    double sum = 0;
    for (auto const& member : used)
      sum += detail::scaled_rtn_error<T>(on, member, device_vector<float const>(s.data(), c), fit, precision);
    return sum;
  };
  best.error_plain = best.error = error_of(best.scales);
  if (!(mean > 0)) return best;
  for (int i = 0; i < options.ratios; ++i) {
    double const ratio = static_cast<double>(i) / options.ratios;
    auto candidate = slimtrim::detail::awq_candidate(activity, magnitude, ratio, options.power_of_two);
    double const error = error_of(candidate);
    if (!(error < best.error)) continue;
    best.error = error;
    best.ratio = ratio;
    best.scales = std::move(candidate);
  }
  return best;
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
