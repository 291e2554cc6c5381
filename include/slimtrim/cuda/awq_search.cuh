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
  quantize_options const* rounding = nullptr;  ///< of this member, where it is not that of the search
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

/// slimtrim::search_awq_scales in two passes over the members, of which one at a time need be in device memory: look_at each,
/// then measure each, in the same order. The candidates are those of the host; their errors are float products, on tensor
/// cores where `precision` says so, which only matters between candidates that are nearly as good. One scale a matrix is an
/// `error`. Cost (ratios + 1) out in² multiply-adds a member; scratch 4096 rows.
template <class T>
class awq_scale_search {
 public:
  awq_scale_search(context& on, index_t columns, awq_options const& options, std::vector<index_t> const& tied,
                   float_precision precision)
      : on_(on),
        columns_(columns),
        options_(options),
        tied_(tied),
        precision_(precision),
        activity_(static_cast<std::size_t>(columns), 0.0),
        magnitude_(activity_) {
    if (!tied.empty())
      expects_equal(static_cast<long long>(tied.size()), columns, "cuda::search_awq_scales", "ties of channels");
  }

  void look_at(awq_member<T> const& member) {
    index_t const n = member.weight.extent(0), c = columns_, group = fit_of(member).group;
    expects_equal(member.weight.extent(1), c, "cuda::search_awq_scales", "inputs of a member");
    expects_equal(member.hessian.extent(0), c, "cuda::search_awq_scales", "rows of a Hessian");
    expects_equal(member.hessian.extent(1), c, "cuda::search_awq_scales", "columns of a Hessian");
    expect_finite<T>(on_, member.weight, "cuda::search_awq_scales");
    used_.push_back(first_not_finite<float>(on_, member.hessian) < 0);
    if (!used_.back() || n == 0) return;
    auto const diagonal_values = download_diagonal(on_, member.hessian);
    for (std::size_t j = 0; j < activity_.size(); ++j)
      activity_[j] += std::max(0.0, static_cast<double>(diagonal_values[j]));
    index_t const groups = ceil_div(c, group), panels = ceil_div(n, detail::rows_a_column_panel);
    expects(panels <= 65535, "cuda::search_awq_scales", "rows: expected at most 512 * 65535");
    auto const largest = on_.scratch_for<float>(n * groups);
    auto const partial = on_.scratch_for<double>((panels + 1) * c);
    device_matrix<float> const by_group(largest.data(), n, groups);
    launch(on_.stream(), {dim3(blocks_for(ceil_div(n * groups, 256 / detail::fit_lanes))), 256, 0},
           detail::largest_of_groups<T>, member.weight, group, by_group);
    unsigned const across = blocks_for(ceil_div(c, 256));
    launch(on_.stream(), {dim3(across, static_cast<unsigned>(panels)), 256, 0}, detail::magnitude_panels<T>,
           member.weight, group, as_const(by_group), partial.data());
    device_vector<double> const total(partial.data() + panels * c, c);
    launch(on_.stream(), {dim3(across), 256, 0}, detail::add_column_panels<double>, partial.data(), panels, total);
    auto const sums = values_on_host(on_.stream(), total.data, c);
    for (std::size_t j = 0; j < magnitude_.size(); ++j) magnitude_[j] += sums[j];
    rows_seen_ += static_cast<double>(n);
  }

  void measure(awq_member<T> const& member) {
    if (candidates_.empty()) make_candidates();
    if (!used_.at(measured_++) || !(rows_seen_ > 0)) return;
    auto const s = on_.scratch_for<float>(columns_);
    for (std::size_t k = 0; k < candidates_.size(); ++k) {
      copy_to_device(on_.stream(), candidates_[k].data(), columns_, s.data());
      errors_[k] += detail::scaled_rtn_error<T>(on_, member, device_vector<float const>(s.data(), columns_),
                                                fit_of(member), precision_);
    }
  }

  /// Once every member was measured.
  [[nodiscard]] awq_scales best() const {
    awq_scales found;
    found.scales.assign(activity_.size(), 1.0F);
    if (candidates_.empty()) return found;
    found.error_plain = found.error = errors_.front();
    for (std::size_t k = 1; k < candidates_.size(); ++k) {
      if (!(errors_[k] < found.error)) continue;
      found.error = errors_[k];
      found.ratio = ratio_of(k);
      found.scales = candidates_[k];
    }
    return found;
  }

 private:
  [[nodiscard]] scale_fit fit_of(awq_member<T> const& member) const {
    uniform_grid const grid = member.rounding != nullptr ? member.rounding->grid : options_.grid;
    grouping const groups = member.rounding != nullptr ? member.rounding->groups : options_.groups;
    expects(groups.kind != group_kind::tensor, "cuda::search_awq_scales",
            "one scale for a whole matrix is not supported on the device");
    return {grid, groups.block_columns(columns_), scale_rule::absmax,
            member.rounding != nullptr ? member.rounding->scales_stored_as : options_.scales_stored_as, {}};
  }
  [[nodiscard]] double ratio_of(std::size_t candidate) const {
    return static_cast<double>(candidate - 1) / options_.ratios;
  }
  // All ones, then one for each exponent where any channel is active.
  void make_candidates() {
    candidates_.assign(1, std::vector<float>(activity_.size(), 1.0F));
    errors_.assign(1, 0.0);
    if (!(rows_seen_ > 0)) return;
    slimtrim::detail::average_tied(tied_, activity_);
    slimtrim::detail::average_tied(tied_, magnitude_);
    double mean = 0;
    for (double const a : activity_) mean += a / static_cast<double>(activity_.size());
    for (std::size_t j = 0; j < activity_.size(); ++j) {
      activity_[j] = mean > 0 ? std::sqrt(activity_[j] / mean) : 0.0;
      magnitude_[j] /= rows_seen_;
    }
    if (!(mean > 0)) return;
    for (int i = 0; i < options_.ratios; ++i)
      candidates_.push_back(slimtrim::detail::awq_candidate(activity_, magnitude_, ratio_of(candidates_.size()), options_.power_of_two));
    errors_.assign(candidates_.size(), 0.0);
  }

  context& on_;
  index_t columns_;
  awq_options options_;
  std::vector<index_t> tied_;
  float_precision precision_;
  std::vector<double> activity_, magnitude_;
  double rows_seen_ = 0;
  std::vector<bool> used_{};
  std::size_t measured_ = 0;
  std::vector<std::vector<float>> candidates_{};
  std::vector<double> errors_{};
};

/// slimtrim::search_awq_scales for members that are all in device memory; see awq_scale_search.
template <class T>
[[nodiscard]] awq_scales search_awq_scales(context& on, std::vector<awq_member<T>> const& members,
                                           awq_options const& options = {}, std::vector<index_t> const& tied = {},
                                           float_precision precision = float_precision::single) {
  if (members.empty()) return {};
  awq_scale_search<T> search(on, members.front().weight.extent(1), options, tied, precision);
  for (auto const& member : members) search.look_at(member);
  for (auto const& member : members) search.measure(member);
  return search.best();
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
