// GPTQ: round column by column, and let the columns not yet rounded absorb the error, as the inputs weigh it.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/slim/column_sweep.hpp>
#include <slimtrim/slim/hessian.hpp>
#include <slimtrim/slim/quantize/descent.hpp>
#include <slimtrim/slim/quantize/rtn.hpp>
#include <slimtrim/slim/quantize/scale_search.hpp>
#include <slimtrim/slim/quantize/sweep_order.hpp>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct gptq_options {
  uniform_grid grid{};
  grouping groups{};
  scale_rule scale = scale_rule::weighted;
  scale_type scales_stored_as = scale_type::bfloat16;
  scale_search search{};
  sweep_order order = sweep_order::automatic;
  damping damp{};
  index_t block = 128;
  int descent_passes = 0;  // coordinate descent over codes and scales after the sweep
  bool guard = true;       // keep RTN for rows where it is better on the calibration tokens
};

/// What happened to one matrix. Errors are tr((W - Q) H (W - Q)ᵀ), in the units of the Hessian that was given.
struct gptq_report {
  bool second_order = false;   // false: the Hessian was of no use and W was rounded to nearest
  bool hessian_finite = true;
  double damp = 0;             // relative to the mean diagonal
  int damp_step = 0;           // how often it was raised by ten
  index_t dead_columns = 0;    // inputs that no token used: rounded, not zeroed
  index_t rows_kept_rtn = 0;   // rows for which round-to-nearest was better
  double error_rtn = 0;        // of round-to-nearest with absmax scales; 0 without guard
  double error = 0;            // of the result; 0 when the Hessian is not finite
};

struct gptq_result {
  quantized_matrix matrix;
  gptq_report report{};
};

namespace detail {

// Chooses grid points during the sweep, and scales when a group is reached (natural order) or from those set before.
class grid_chooser {
 public:
  grid_chooser(quantize_options const& options, prepared_hessian const& hessian, bool scales_are_set,
               quantized_matrix& out, std::uint8_t* codes)
      : options_(options), order_(hessian.order.data()), set_(scales_are_set), out_(out), codes_(codes) {
    index_t const c = out.columns;
    width_ = out.groups.block_columns(c);
    block_rows_ = out.groups.block_rows(out.rows);
    weights_ = buffer<float>(c);
    for (index_t j = 0; j < c; ++j) {
      float const pivot = hessian.factor(j, j);
      weights_[j] = 1.0F / (pivot * pivot);
    }
  }

  void begin_block(matrix_view<float const> W, index_t, index_t) { W_ = W; }

  void choose(sweep_tile const& tile, index_t j, float* target) const {
    constexpr index_t lanes = sweep_tile::lanes;
    index_t const column = order_[j], group = column / width_;
    if (!set_ && j % width_ == 0) search(tile, j, group);
    float scale[lanes], offset[lanes];
    for (index_t l = 0; l < lanes; ++l) {
      scale_and_zero const at = l < tile.rows ? out_.at((tile.first_row + l) / block_rows_, group) : scale_and_zero{1.0F, out_.grid.middle()};
      scale[l] = at.scale;
      offset[l] = static_cast<float>(at.zero - out_.grid.middle());
    }
    float const bottom = static_cast<float>(-out_.grid.middle());
    float const top = static_cast<float>(out_.grid.last_code() - out_.grid.middle());
    float const* const value = tile.column(j);
    std::uint32_t code[lanes];
    // As uniform_grid::encode and decode, written out so that the lanes become vectors.
    for (index_t l = 0; l < lanes; ++l) {
      float x = value[l] / scale[l] + offset[l];
      x = x < bottom ? bottom : x;
      x = x > top ? top : x;
      float const shifted = x + 12582912.0F;
      code[l] = bits_as<std::uint32_t>(shifted) + static_cast<std::uint32_t>(out_.grid.middle());
      target[l] = ((shifted - 12582912.0F) - offset[l]) * scale[l];
    }
    for (index_t l = 0; l < tile.rows; ++l)
      codes_[(tile.first_row + l) * out_.columns + column] = static_cast<std::uint8_t>(code[l]);
  }

 private:
  void search(sweep_tile const& tile, index_t j, index_t group) const {
    index_t const n = std::min(width_, out_.columns - j);
    buffer<float> values(n);
    bool const weighted = options_.scale == scale_rule::weighted;
    for (index_t l = 0; l < tile.rows; ++l) {
      // A group that reaches beyond the block starts with it, where the matrix itself is up to date.
      if (j + n <= tile.end) {
        for (index_t k = 0; k < n; ++k) values[k] = tile.column(j + k)[l];
      } else {
        for (index_t k = 0; k < n; ++k) values[k] = W_(tile.first_row + l, j + k);
      }
      out_.set(tile.first_row + l, group, fit_scale(out_.grid, values.data(), n, out_.scales_stored_as, options_.scale,
                                                    weighted ? weights_.data() + j : nullptr, options_.search));
    }
  }

  quantize_options options_;
  std::int32_t const* order_;
  bool set_;
  quantized_matrix& out_;
  std::uint8_t* codes_;
  index_t width_ = 1;
  index_t block_rows_ = 1;
  buffer<float> weights_;
  matrix_view<float const> W_{};
};

static_assert(column_chooser<grid_chooser>);

// Errors of all rows of q against W under H, in row strips so that the differences stay small.
template <host_backend B, class T>
std::vector<double> quantized_errors(B const& backend, matrix_view<T const> W, quantized_view<> const& q,
                                     matrix_view<float const> H) {
  constexpr index_t strip = 512;
  std::vector<double> errors(static_cast<std::size_t>(W.extent(0)));
  matrix<float> difference(std::min(strip, W.extent(0)), W.extent(1));
  for (index_t first = 0; first < W.extent(0); first += strip) {
    index_t const n = std::min(strip, W.extent(0) - first);
    for_rows(backend.run_on(), n, [&](index_t i) {
      float* const d = &difference(i, 0);
      dequantize(q, first + i, d);
      for (index_t k = 0; k < W.extent(1); ++k) d[k] -= static_cast<float>(W(first + i, k));
    });
    hessian_errors(backend, as_const(rows(difference.view(), 0, n)), H, vector_view<double>(errors.data() + first, n));
  }
  return errors;
}

// Errors of all rows from the losses of the sweep, which also count the damping: error = unit (loss - damp |d|²), and for dead
// columns, whose diagonal is one, - d². Empty when that is too close to `rival` for a difference of sums to decide.
template <host_backend B, class T>
std::vector<double> errors_from_losses(B const& backend, matrix_view<T const> W, quantized_view<> const& q,
                                       prepared_hessian const& prepared, std::vector<double> const& losses,
                                       std::vector<double> const& rival) {
  std::vector<double> errors(losses.size());
  for_rows(backend.run_on(), W.extent(0), [&](index_t r) {
    buffer<float> values(W.extent(1));
    dequantize(q, r, values.data());
    double penalty = 0;
    for (index_t j = 0; j < W.extent(1); ++j) {
      double const d = static_cast<double>(values[j]) - static_cast<double>(static_cast<float>(W(r, j)));
      penalty += (prepared.is_dead[static_cast<std::size_t>(j)] != 0 ? 1.0 : prepared.damp) * d * d;
    }
    std::size_t const at = static_cast<std::size_t>(r);
    errors[at] = prepared.unit * std::max(0.0, losses[at] - penalty);
  });
  for (std::size_t r = 0; r < errors.size(); ++r)
    if (!(errors[r] + 1e-3 * prepared.unit * losses[r] <= rival[r])) return {};
  return errors;
}

// Copies the rows of `from` that are better into `to`; all or none where rows share a scale. Returns how many.
inline index_t keep_better_rows(quantized_matrix const& from, std::vector<double> const& from_errors, quantized_matrix& to,
                                std::vector<double>& to_errors) {
  index_t kept = 0;
  bool const shared = to.groups.kind == group_kind::tensor;
  double from_total = 0, to_total = 0;
  for (std::size_t r = 0; r < to_errors.size(); ++r) {
    from_total += from_errors[r];
    to_total += to_errors[r];
  }
  for (index_t r = 0; r < to.rows; ++r) {
    std::size_t const at = static_cast<std::size_t>(r);
    if (shared ? from_total >= to_total : from_errors[at] >= to_errors[at]) continue;
    to_errors[at] = from_errors[at];
    std::copy_n(&from.words(r, 0), to.words.extent(1), &to.words(r, 0));
    if (!shared || kept == 0)
      for (index_t g = 0; g < to.scales.extent(1); ++g) to.set(shared ? 0 : r, g, from.at(shared ? 0 : r, g));
    ++kept;
  }
  return kept;
}

}  // namespace detail

/// GPTQ (Frantar, Ashkboos, Hoefler, Alistarh 2022, arXiv 2210.17323): minimises tr((W - Q) H (W - Q)ᵀ) greedily, column by
/// column, e = (w - q) / R_jj, w_k -= e R_jk, with the upper factor R of the inverse Hessian, H⁻¹ = Rᵀ R.
///
/// weight: [out, in], float, bfloat16 or float16. hessian: [in, in], sum or mean of x xᵀ over the calibration tokens.
/// judge: the Hessian under which the result is compared with RTN, where it differs from the one that steers the sweep (an
/// under-fed expert steers by a shrunk one); empty: the same.
/// Deviations: R comes from one reversed Cholesky (H = U Uᵀ, R = U⁻¹) instead of factor, invert, factor. Groups stay natural in any
/// order. In natural order the scale of a group is searched when it is reached, weighted by 1 / R_jj²; in activation order
/// before the sweep. Inputs without activity keep their rounded weights instead of becoming zero. Rows for which plain RTN is
/// better on the tokens of `judge` keep RTN.
/// Fallback instead of failure: a Hessian that is zero, not finite or not positive definite after all dampings gives RTN with
/// scales searched without weights. Throws `input_error` naming the first NaN or Inf of the weight; `error` for
/// shapes. Accumulates in float by panels, factor as the backend does. Cost in² out + (2/3) in³ multiply-adds, and as
/// much as the sweep again for the guard. Byte-identical for any executor.
template <host_backend B, matrix_like M>
[[nodiscard]] gptq_result gptq(B const& backend, M&& weight, matrix_view<float const> hessian,
                               gptq_options const& options = {}, matrix_view<float const> judge = {}) {
  auto const W = as_const_matrix(weight);
  using T = typename std::remove_cvref_t<decltype(W)>::value_type;
  if constexpr (requires { backend.gptq(W, hessian, options, judge); }) {
    return backend.gptq(W, hessian, options, judge);
  } else {
    index_t const n = W.extent(0), c = W.extent(1);
    expects_equal(hessian.extent(0), c, "gptq", "rows of the Hessian");
    expects_equal(hessian.extent(1), c, "gptq", "columns of the Hessian");
    if (judge.data == nullptr) judge = hessian;
    expects_equal(judge.extent(0), c, "gptq", "rows of the judging Hessian");
    options.grid.check();
    bool const by_activation = options.order == sweep_order::activation ||
                               (options.order == sweep_order::automatic && options.grid.bits >= 3);
    quantize_options const plain{options.grid, options.groups, scale_rule::absmax, options.scales_stored_as, options.search};
    quantize_options searched = plain;
    searched.scale = options.scale;

    // Also the check that W is finite, before any long work.
    quantized_matrix const nearest = rtn(backend, W, plain);
    gptq_result result;
    std::vector<double> losses;
    prepared_hessian prepared =
        prepare_hessian(backend, hessian, by_activation ? column_order::activation : column_order::natural, options.damp);
    result.report.second_order = prepared.usable;
    result.report.hessian_finite = prepared.finite;
    result.report.damp = prepared.damp;
    result.report.damp_step = prepared.damp_step;
    result.report.dead_columns = prepared.dead;
    if (!prepared.usable) {
      result.matrix = rtn(backend, W, searched);
    } else {
      result.matrix = quantized_matrix(n, c, options.grid, options.groups, options.scales_stored_as);
      bool const scales_first = by_activation || options.groups.kind == group_kind::tensor;
      if (scales_first) {
        std::vector<float> column_weights(static_cast<std::size_t>(c));
        for (index_t j = 0; j < c; ++j) {
          float const pivot = prepared.factor(j, j);
          column_weights[static_cast<std::size_t>(prepared.order[j])] = 1.0F / (pivot * pivot);
        }
        bool const weighted = options.scale == scale_rule::weighted;
        (void)detail::quantize_rows<T>(backend.run_on(), W, searched, weighted ? column_weights.data() : nullptr, false,
                                       result.matrix);
      }
      matrix<float> moving(n, c);
      detail::for_rows(backend.run_on(), n, [&](index_t r) {
        for (index_t j = 0; j < c; ++j) moving(r, j) = static_cast<float>(W(r, prepared.order[j]));
      });
      buffer<std::uint8_t> codes(n * c);
      losses.resize(static_cast<std::size_t>(n));
      detail::grid_chooser chooser(searched, prepared, scales_first, result.matrix, codes.data());
      column_sweep(backend, moving.view(), as_const(prepared.factor.view()),
                   sweep_blocks(c, options.block, by_activation ? 0 : options.groups.block_columns(c)), chooser,
                   vector_view<double>(losses.data(), n));
      if (options.descent_passes > 0)
        detail::descend<T>(backend, W, prepared, options.descent_passes, result.matrix, moving.view(), codes.data());
      detail::for_rows(backend.run_on(), n, [&](index_t r) { result.matrix.set_row(r, codes.data() + r * c); });
    }
    if (options.guard && (judge.data == hessian.data ? prepared.finite : detail::all_finite(judge))) {
      auto const before = detail::quantized_errors<B, T>(backend, W, nearest.view(), judge);
      std::vector<double> after;
      if (!losses.empty() && judge.data == hessian.data && options.descent_passes == 0)
        after = detail::errors_from_losses<B, T>(backend, W, result.matrix.view(), prepared, losses, before);
      prepared = prepared_hessian{};
      if (after.empty()) after = detail::quantized_errors<B, T>(backend, W, result.matrix.view(), judge);
      result.report.rows_kept_rtn = detail::keep_better_rows(nearest, before, result.matrix, after);
      for (double const e : before) result.report.error_rtn += e;
      for (double const e : after) result.report.error += e;
    }
    return result;
  }
}

}  // namespace v0
}  // namespace slimtrim
