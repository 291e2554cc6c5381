// SparseGPT on the device: many weights at a time, those that read one input stacked, in the steps of slimtrim::sparsegpt.
//
// Hessians are factored one after another; scales and sweeps run for all weights of the batch together, and the comparison
// with Wanda problem by problem. Nothing but diagonals, errors and the results visits the host.
#pragma once

#include <slimtrim/cuda/codes.cuh>
#include <slimtrim/cuda/fit_scale.cuh>
#include <slimtrim/cuda/hessian.cuh>
#include <slimtrim/cuda/select.cuh>
#include <slimtrim/cuda/sparse_sweep.cuh>
#include <slimtrim/cuda/stack.cuh>
#include <slimtrim/slim/sparse/sparsegpt.hpp>
#include <slimtrim/slim/sparse/wanda.hpp>
#include <slimtrim/tensor/mask_view.hpp>

#include <cstdint>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Weights that read one input, [rows, columns] each, and the Hessian of that input: a layer's gate and up, or one matrix.
template <class T>
struct sparsegpt_problem {
  std::vector<device_matrix<T const>> weights{};
  device_matrix<float const> hessian{};
  std::vector<mask const*> given{};  ///< what to keep of each weight, in host memory, where that has been chosen; else none
};

/// Whether the device's sweep takes a pattern, or a mask that is given, and a grid.
[[nodiscard]] inline bool sweeps_sparse(sparsegpt_options const& options, bool given) {
  bool const structured = !given && options.pattern.structured();
  return options.block == sweep_shape::columns && (!structured || options.pattern.of == 4 || options.pattern.of == 8) &&
         !(options.quantize && options.quantize->groups.kind == group_kind::tensor);
}

namespace detail {

template <class T>
struct masked_element {
  masked_view<T, space::device> W;
  device_matrix<float> to;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { to(i, j) = W(i, j); }
};

template <class T>
struct change_element {
  device_matrix<T const> W;
  device_matrix<float const> changed;
  device_matrix<float> difference;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { difference(i, j) = changed(i, j) - static_cast<float>(W(i, j)); }
};

struct decode_element {
  device_matrix<std::uint8_t const> codes;
  uniform_grid grid;
  index_t group;
  group_scales scales;
  device_matrix<float> to;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { to(i, j) = grid.decode(codes(i, j), scales.at(i, j / group, grid)); }
};

}  // namespace detail

/// slimtrim::sparsegpt for every weight of every problem; the results stand in the order given, in host memory. Nothing for
/// the weights of a Hessian that is of no use: without a sweep there is nothing to do here that the host does not do as well.
///
/// All problems of one call have weights of the same shapes, and all have masks or none; a few at a time bound the memory: a problem
/// takes 9 bytes an element (8 without a grid) and columns² * 4, the largest factorisation 20 columns² more. Sums of the sweep are float in
/// another order than the host's, so of two weights that cost nearly the same the other may go; factors in double; rows
/// are compared with Wanda's by errors in float. `precision`: of the products between blocks of columns. Not on the
/// device, `error`: what sweeps_sparse does not take. Throws `input_error` naming the first NaN or Inf of a weight. Waits
/// for the device. Deterministic.
template <class T>
[[nodiscard]] std::vector<std::vector<std::optional<sparsegpt_result>>> sparsegpt(
    context& on, std::vector<sparsegpt_problem<T>> const& problems, sparsegpt_options const& options = {},
    float_precision precision = float_precision::single) {
  std::vector<std::vector<std::optional<sparsegpt_result>>> results(problems.size());
  if (problems.empty()) return results;
  bool const given = !problems[0].given.empty(), structured = !given && options.pattern.structured();
  expects(options.given == nullptr, "cuda::sparsegpt", "masks: expected with the problems");
  expects(sweeps_sparse(options, given), "cuda::sparsegpt",
          "expected blocks of 128, M of 4 or 8, and more than one scale a matrix");
  if (options.quantize) options.quantize->groups.check();
  detail::stack_shape const stacked = detail::shape_of_stacks<T>(on, problems, "cuda::sparsegpt");
  index_t const n = stacked.rows, c = stacked.columns, words = ceil_div(c, 64);
  sparse_choice choice;
  if (!given) choice.pattern = options.pattern;
  if (options.quantize) choice.grid = options.quantize->grid;
  for (auto const& W : problems[0].weights) choice.heights.push_back(W.extent(0));
  for (auto const& problem : problems) {
    std::size_t const count = choice.heights.size();
    expects(problem.weights.size() == count && problem.given.size() == (given ? count : 0), "cuda::sparsegpt",
            "weights and masks: expected as many for each problem");
    for (std::size_t w = 0; w < count; ++w) {
      expects_equal(problem.weights[w].extent(0), choice.heights[w], "cuda::sparsegpt", "rows of a weight");
      if (!given) continue;
      expects_equal(problem.given[w]->rows(), choice.heights[w], "cuda::sparsegpt", "rows of a mask");
      expects_equal(problem.given[w]->columns(), c, "cuda::sparsegpt", "columns of a mask");
    }
  }

  // Only problems with a factor take part.
  auto const factors = on.scratch_for<float>(stacked.problems * c * c);
  std::vector<prepared_order> prepared;
  std::vector<std::size_t> taken;
  for (std::size_t p = 0; p < problems.size(); ++p) {
    results[p].resize(choice.heights.size());
    device_matrix<float> const R(factors.data() + static_cast<index_t>(taken.size()) * c * c, c, c);
    prepared_order found = prepare_hessian(on, problems[p].hessian, column_order::natural, options.damp, R);
    if (!found.usable) continue;
    prepared.push_back(std::move(found));
    taken.push_back(p);
  }
  index_t const P = static_cast<index_t>(taken.size());
  if (P == 0 || n == 0) return results;

  auto const moving = on.scratch_for<float>(P * n * c), weights = on.scratch_for<float>(P * n * c);
  auto const kept = on.scratch_for<std::uint64_t>(P * n * words), plain_kept = on.scratch_for<std::uint64_t>(n * words);
  auto const losses = on.scratch_for<double>(P * n);
  auto const natural = on.scratch_for<std::int32_t>(c), group_of = on.scratch_for<std::int32_t>(P * c);
  auto const column_weights = on.scratch_for<float>(P * c), norms = on.scratch_for<float>(c), errors = on.scratch_for<float>(2 * n);
  index_t const group = options.quantize ? options.quantize->groups.block_columns(c) : c;
  detail::rounded_stacks const swept(on, choice.grid, group, P, n, c), plain(on, choice.grid, group, 1, n, c);
  bool const by_row = given || structured;
  scale_fit fit;
  if (options.quantize)
    fit = {options.quantize->grid, group, options.quantize->scale, options.quantize->scales_stored_as, options.quantize->search};
  copy_to_device(on.stream(), prepared[0].order.data(), c, natural.data());

  for (index_t p = 0; p < P; ++p) {
    auto const& problem = problems[taken[static_cast<std::size_t>(p)]];
    device_vector<float> const weight_of(column_weights.data() + p * c, c);
    if (options.quantize)
      for_each_element(on, c, 1, true,
                       detail::weigh_columns{device_matrix<float const>(factors.data() + p * c * c, c, c), natural.data(), group,
                                             weight_of.data, group_of.data() + p * c});
    index_t base = 0;
    for (std::size_t w = 0; w < problem.weights.size(); ++w) {
      auto const& W = problem.weights[w];
      index_t const height = W.extent(0), row = p * n + base;
      copy_elements<T, float>(on, W, device_matrix<float>(moving.data() + row * c, height, c));
      if (given) copy_to_device(on.stream(), problem.given[w]->view().words, height * words, kept.data() + row * words);
      if (options.quantize)
        fit_scales<T>(on, W, fit, as_const(weight_of), swept.scales_of(p, base, height), swept.zeros_of(p, base, height));
      base += height;
    }
  }
  sweep_batch const sweep{P,
                          n,
                          c,
                          swept.groups,
                          moving.data(),
                          factors.data(),
                          group_of.data(),
                          swept.of(0).scales,
                          swept.of(0).zeros,
                          options.quantize ? swept.codes.data() : nullptr,
                          losses.data()};
  sparse_sweep(on, {sweep, kept.data(), weights.data()}, choice, precision);

  for (index_t p = 0; p < P; ++p) {
    auto const& problem = problems[taken[static_cast<std::size_t>(p)]];
    auto const& found = prepared[static_cast<std::size_t>(p)];
    device_matrix<float> const made(weights.data() + p * n * c, n, c);
    std::uint64_t* const made_kept = kept.data() + p * n * words;
    device_vector<float> const made_error(errors.data(), n), plain_error(errors.data() + n, n);
    auto const measure = [&](device_matrix<float const> changed, device_vector<float> to) {
      detail::stack_errors<T>(
          on, problem.weights, problem.hessian,
          [&](device_matrix<T const> W, index_t row, device_matrix<float> D) {
            for_each_element(on, W.extent(0), c, false,
                             detail::change_element<T>{W, slimtrim::rows(changed, row, W.extent(0)), D});
          },
          to);
    };
    measure(as_const(made), made_error);
    buffer<float> scoring;
    if (structured) {
      std::vector<float> const moments = download_diagonal(on, problem.hessian);
      scoring = slimtrim::detail::scoring_norms(vector_view<float const>(moments.data(), c));
      copy_to_device(on.stream(), scoring.data(), c, norms.data());
    }
    if (by_row) {
      // Wanda without update, where the sweep's own work was.
      device_matrix<float> const masked(moving.data() + p * n * c, n, c);
      index_t base = 0;
      for (auto const& W : problem.weights) {
        index_t const height = W.extent(0);
        std::uint64_t* const bits = (given ? made_kept : plain_kept.data()) + base * words;
        if (structured)
          select<T>(on, W, device_vector<float const>(norms.data(), c), options.pattern.keep, options.pattern.of,
                    device_matrix<std::uint64_t>(bits, height, words));
        for_each_element(on, height, c, false,
                         detail::masked_element<T>{{W, {height, c, bits, words}}, slimtrim::rows(masked, base, height)});
        base += height;
      }
      if (options.quantize) {
        auto const codes = plain.codes_of(0);
        fit_scales<float>(on, as_const(masked), fit, {}, plain.scales_of(0, 0, n), plain.zeros_of(0, 0, n));
        for_each_element(on, n, c, false,
                         detail::encode_element<float>{as_const(masked), fit.grid, group, 0, plain.of(0), codes, natural.data()});
        for_each_element(on, n, c, false, detail::decode_element{as_const(codes), fit.grid, group, plain.of(0), masked});
      }
      measure(as_const(masked), plain_error);
      float const* const theirs = plain_error.data;
      float const* const ours = made_error.data;
      for_each_element(on, n, c, false, detail::keep_rounded<float>{theirs, ours, masked.data, made.data, c});
      if (structured)
        for_each_element(on, n, words, false,
                         detail::keep_rounded<std::uint64_t>{theirs, ours, plain_kept.data(), made_kept, words});
      if (options.quantize) {
        for_each_element(on, n, c, false,
                         detail::keep_rounded<std::uint8_t>{theirs, ours, plain.codes.data(), swept.codes_of(p).data, c});
        for_each_element(on, plain.groups, n, false, detail::keep_rounded_scales{theirs, ours, plain.of(0), swept.of(p)});
      }
    }
    std::vector<float> own(static_cast<std::size_t>(n)), other(static_cast<std::size_t>(n));
    copy_to_host(on.stream(), made_error.data, n, own.data());
    if (by_row) copy_to_host(on.stream(), plain_error.data, n, other.data());
    index_t base = 0;
    for (std::size_t w = 0; w < problem.weights.size(); ++w) {
      index_t const height = choice.heights[w];
      sparsegpt_result result{mask(height, c), matrix<float>(height, c), std::nullopt, {}};
      result.report.second_order = true;
      result.report.damp = found.damp;
      result.report.damp_step = found.damp_step;
      result.report.dead_columns = found.dead;
      for (index_t r = base; r < base + height; ++r) {
        auto const i = static_cast<std::size_t>(r);
        bool const taken_back = by_row && other[i] < own[i];
        result.report.rows_kept_wanda += taken_back;
        result.report.error += static_cast<double>(taken_back ? other[i] : own[i]);
      }
      if (height > 0) copy_to_host(on.stream(), made_kept + base * words, height * words, &result.kept.word(0, 0));
      copy_to_host(on.stream(), made.data + base * c, height * c, result.weight.view().data);
      if (options.quantize) {
        result.quantized.emplace(height, c, fit.grid, options.quantize->groups, options.quantize->scales_stored_as);
        detail::download_codes(on, swept.codes_of(p).data + base * c, natural.data(), as_const(swept.scales_of(p, base, height)),
                               as_const(swept.zeros_of(p, base, height)), *result.quantized);
      }
      results[taken[static_cast<std::size_t>(p)]][w] = std::move(result);
      base += height;
    }
  }
  return results;
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
