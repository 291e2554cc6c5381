// GPTQ on the device: many weights at a time, those that read one input stacked, in the steps of slimtrim::gptq.
//
// Hessians are factored one after another; scales, sweeps and the guard run for all weights of the batch together.
// Nothing but the diagonals and the results visits the host.
#pragma once

#include <slimtrim/cuda/backend.cuh>
#include <slimtrim/cuda/codes.cuh>
#include <slimtrim/cuda/column_sweep.cuh>
#include <slimtrim/cuda/fit_scale.cuh>
#include <slimtrim/cuda/hessian.cuh>
#include <slimtrim/cuda/stack.cuh>
#include <slimtrim/slim/quantize/gptq.hpp>

#include <cstdint>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Weights that read one input, [rows, columns] each, and the Hessian of that input: a layer's gate and up, or one
/// matrix.
template <class T>
struct gptq_problem {
  std::vector<device_matrix<T const>> weights{};
  device_matrix<float const> hessian{};
  device_matrix<float const> judge{};  ///< as slimtrim::gptq; no data: the same Hessian
};

namespace detail {

// to(i, j) = float(W(i, order[j])).
template <class T>
struct gather_columns {
  device_matrix<T const> W;
  std::int32_t const* order;
  device_matrix<float> to;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { to(i, j) = static_cast<float>(W(i, order[j])); }
};

struct identity_matrix {
  device_matrix<float> out;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { out(i, j) = i == j ? 1.0F : 0.0F; }
};

}  // namespace detail

/// slimtrim::gptq for every weight of every problem; the results stand in the order given, in host memory.
///
/// All problems of one call have the same columns and, their weights stacked, the same rows; a few at a time bound the
/// memory: a problem takes rows * columns * 6 bytes and columns² * 4, the largest factorisation 20 columns² more. Sums
/// of the sweep are float in another order than the host's, so a value on the edge of a rounding may fall the other
/// way; factors in double; the guard compares errors in float. `precision`: of the products between blocks of columns.
/// Not on the device, `error`: one scale a matrix, and descent_passes. Throws `input_error` naming the first NaN or Inf
/// of a weight. A Hessian that is of no use gives RTN with searched scales for its weights, as on the host. Waits for
/// the device.
template <class T>
[[nodiscard]] std::vector<std::vector<gptq_result>> gptq(context& on, std::vector<gptq_problem<T>> const& problems,
                                                         gptq_options const& options = {},
                                                         float_precision precision = float_precision::single) {
  std::vector<std::vector<gptq_result>> results(problems.size());
  if (problems.empty()) return results;
  options.grid.check();
  options.groups.check();
  expects(options.groups.kind != group_kind::tensor, "cuda::gptq",
          "one scale for a whole matrix is not supported on the device");
  expects(options.descent_passes == 0, "cuda::gptq", "descent_passes: expected 0 on the device");
  detail::stack_shape const stacked = detail::shape_of_stacks<T>(on, problems, "cuda::gptq");
  for (auto const& problem : problems)
    if (problem.judge.data != nullptr)
      expects_equal(problem.judge.extent(0), stacked.columns, "cuda::gptq", "rows of the judging Hessian");
  index_t const n = stacked.rows, c = stacked.columns, P = stacked.problems;
  index_t const group = options.groups.block_columns(c);
  bool const by_activation =
      options.order == sweep_order::activation || (options.order == sweep_order::automatic && options.grid.bits >= 3);
  scale_fit fit{options.grid, group, options.scale, options.scales_stored_as, options.search};

  auto const factors = on.scratch_for<float>(P * c * c), moving = on.scratch_for<float>(P * n * c);
  detail::rounded_stacks const swept(on, options.grid, group, P, n, c);
  auto const order = on.scratch_for<std::int32_t>(P * c), place = on.scratch_for<std::int32_t>(P * c),
             group_of = on.scratch_for<std::int32_t>(P * c);
  auto const weights = on.scratch_for<float>(P * c);
  auto const row_losses = on.scratch_for<double>(P * n);

  std::vector<prepared_order> prepared;
  for (index_t p = 0; p < P; ++p) {
    auto const& problem = problems[static_cast<std::size_t>(p)];
    device_matrix<float> const R(factors.data() + p * c * c, c, c);
    prepared.push_back(prepare_hessian(
        on, problem.hessian, by_activation ? column_order::activation : column_order::natural, options.damp, R));
    auto const& found = prepared.back();
    std::vector<std::int32_t> inverse(static_cast<std::size_t>(c));
    for (std::size_t j = 0; j < inverse.size(); ++j)
      inverse[static_cast<std::size_t>(found.order[j])] = static_cast<std::int32_t>(j);
    copy_to_device(on.stream(), found.order.data(), c, order.data() + p * c);
    copy_to_device(on.stream(), inverse.data(), c, place.data() + p * c);
    // Host memory of this turn is read before it goes.
    check(cudaStreamSynchronize(on.stream()), "cuda::gptq");
    // A problem without a factor takes part with the identity, and is rounded afterwards.
    if (!found.usable) for_each_element(on, c, c, false, detail::identity_matrix{R});
    for_each_element(on, c, 1, true,
                     detail::weigh_columns{as_const(R), order.data() + p * c, group, weights.data() + p * c,
                                           group_of.data() + p * c});
    index_t base = 0;
    for (auto const& W : problem.weights) {
      device_matrix<float> const part(moving.data() + (p * n + base) * c, W.extent(0), c);
      for_each_element(on, W.extent(0), c, false, detail::gather_columns<T>{W, order.data() + p * c, part});
      if (by_activation || !found.usable)
        fit_scales<T>(
            on, W, fit,
            found.usable ? device_vector<float const>(weights.data() + p * c, c) : device_vector<float const>{},
            swept.scales_of(p, base, W.extent(0)), swept.zeros_of(p, base, W.extent(0)));
      base += W.extent(0);
    }
  }

  sweep_batch const batch{P,
                          n,
                          c,
                          swept.groups,
                          moving.data(),
                          factors.data(),
                          group_of.data(),
                          swept.of(0).scales,
                          swept.of(0).zeros,
                          swept.codes.data(),
                          row_losses.data()};
  auto const search_group = [&](index_t begin, index_t end) {
    if (by_activation) return;
    for (index_t p = 0; p < P; ++p) {
      if (!prepared[static_cast<std::size_t>(p)].usable) continue;
      index_t const sizes[2] = {n, end - begin}, steps[2] = {c, 1}, g = begin / group;
      scale_fit one = fit;
      one.group = end - begin;
      fit_scales<float>(on, device_matrix<float const>(moving.data() + p * n * c + begin, sizes, steps), one,
                        device_vector<float const>(weights.data() + p * c + begin, end - begin),
                        slimtrim::columns(swept.scales_of(p, 0, n), g, 1),
                        options.grid.symmetric ? device_matrix<std::uint8_t>{}
                                               : slimtrim::columns(swept.zeros_of(p, 0, n), g, 1));
    }
  };
  column_sweep(on, batch, options.grid, by_activation ? sweep_shape::columns : group, search_group, precision);

  // Round-to-nearest where there was no factor, and to guard against where there was one.
  detail::rounded_stacks const plain(on, options.grid, group, 1, n, c);
  auto const errors = on.scratch_for<float>(2 * n);
  for (index_t p = 0; p < P; ++p) {
    auto const& problem = problems[static_cast<std::size_t>(p)];
    auto const& found = prepared[static_cast<std::size_t>(p)];
    std::int32_t const* const at = place.data() + p * c;
    auto const round = [&](detail::group_scales const& by, device_matrix<std::uint8_t> to) {
      index_t base = 0;
      for (auto const& W : problem.weights) {
        for_each_element(on, W.extent(0), c, false,
                         detail::encode_element<T>{W, options.grid, group, base, by, to, at});
        base += W.extent(0);
      }
    };
    if (!found.usable) round(swept.of(p), swept.codes_of(p));
    device_matrix<float const> const judge = problem.judge.data != nullptr ? problem.judge : problem.hessian;
    bool const guarded =
        options.guard && (problem.judge.data == nullptr ? found.finite : first_not_finite<float>(on, judge) < 0);
    std::vector<float> before(static_cast<std::size_t>(n)), after(static_cast<std::size_t>(n));
    if (guarded) {
      scale_fit absmax = fit;
      absmax.rule = scale_rule::absmax;
      index_t base = 0;
      for (auto const& W : problem.weights) {
        fit_scales<T>(on, W, absmax, {}, plain.scales_of(0, base, W.extent(0)), plain.zeros_of(0, base, W.extent(0)));
        base += W.extent(0);
      }
      round(plain.of(0), plain.codes_of(0));
      device_vector<float> const rounded(errors.data(), n), moved(errors.data() + n, n);
      auto const measure = [&](detail::group_scales const& by, device_matrix<std::uint8_t const> all,
                               device_vector<float> to) {
        detail::stack_errors<T>(
            on, problem.weights, judge,
            [&](device_matrix<T const> W, index_t row, device_matrix<float> D) {
              for_each_element(on, W.extent(0), c, false,
                               detail::error_element<T>{W, options.grid, group, row, by, all, at, D});
            },
            to);
      };
      measure(plain.of(0), as_const(plain.codes_of(0)), rounded);
      measure(swept.of(p), as_const(swept.codes_of(p)), moved);
      for_each_element(
          on, n, c, false,
          detail::keep_rounded<std::uint8_t>{rounded.data, moved.data, plain.codes.data(), swept.codes_of(p).data, c});
      for_each_element(on, swept.groups, n, false,
                       detail::keep_rounded_scales{rounded.data, moved.data, plain.of(0), swept.of(p)});
      copy_to_host(on.stream(), rounded.data, n, before.data());
      copy_to_host(on.stream(), moved.data, n, after.data());
    }
    index_t base = 0;
    for (auto const& W : problem.weights) {
      index_t const height = W.extent(0);
      gptq_result result;
      result.matrix = quantized_matrix(height, c, options.grid, options.groups, options.scales_stored_as);
      result.report.second_order = found.usable;
      result.report.hessian_finite = found.finite;
      result.report.damp = found.damp;
      result.report.damp_step = found.damp_step;
      result.report.dead_columns = found.dead;
      for (index_t r = base; guarded && r < base + height; ++r) {
        auto const i = static_cast<std::size_t>(r);
        bool const kept = before[i] < after[i];
        result.report.rows_kept_rtn += kept;
        result.report.error_rtn += static_cast<double>(before[i]);
        result.report.error += static_cast<double>(kept ? before[i] : after[i]);
      }
      detail::download_codes(on, swept.codes_of(p).data + base * c, at, as_const(swept.scales_of(p, base, height)),
                             as_const(swept.zeros_of(p, base, height)), result.matrix);
      results[static_cast<std::size_t>(p)].push_back(std::move(result));
      base += height;
    }
  }
  return results;
}

}  // namespace cuda

/// GPTQ of one weight in device memory, through the name that all backends share; see cuda::gptq.
template <class T>
[[nodiscard]] gptq_result gptq(cuda_backend const& backend, device_matrix<T const> weight,
                               device_matrix<float const> hessian, gptq_options const& options = {},
                               device_matrix<float const> judge = {}) {
  return std::move(cuda::gptq<T>(backend.on(), {{{weight}, hessian, judge}}, options)[0][0]);
}

}  // namespace v0
}  // namespace slimtrim
