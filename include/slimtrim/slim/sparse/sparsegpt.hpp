// SparseGPT: choose what to prune block by block by its true cost, and let the weights not yet visited make up for it.
// With a quantisation grid the kept weights are rounded in the same sweep.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/slim/column_sweep.hpp>
#include <slimtrim/slim/hessian.hpp>
#include <slimtrim/slim/quantize/gptq.hpp>
#include <slimtrim/slim/quantize/rtn.hpp>
#include <slimtrim/slim/sparse/mask.hpp>
#include <slimtrim/slim/sparse/wanda.hpp>

#include <algorithm>
#include <cmath>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct sparsegpt_options {
  sparsity pattern{};
  damping damp{};
  index_t block = 128;
  /// Also round the kept weights to this grid (scales from the whole group before the sweep, weighted by 1 / R_jj²).
  std::optional<quantize_options> quantize{};
  /// What to keep, where that has been chosen already (Wanda's or magnitude's choice); null: chosen here by `pattern`. The sweep then
  /// makes up for what is gone. Outlives the call.
  mask const* given = nullptr;
};

struct sparsegpt_report {
  bool second_order = false;   // false: the Hessian was of no use, Wanda's rule (or magnitude) without update
  bool hessian_finite = true;
  double damp = 0;
  int damp_step = 0;
  index_t dead_columns = 0;
  index_t rows_kept_wanda = 0;  // rows where Wanda without update was better on the calibration tokens (N:M only)
  double error = 0;             // tr((W - W') H (W - W')ᵀ), in the units of the Hessian given; 0 when it is not finite
};

struct sparsegpt_result {
  mask kept;
  matrix<float> weight;                      // [out, in], the updated weights; exactly zero where pruned
  std::optional<quantized_matrix> quantized;  // codes of `weight`, with options.quantize
  sparsegpt_report report{};
};

namespace detail {

// What losing a weight costs, w² / R_jj², no more than scores may be.
[[nodiscard]] SLIMTRIM_HD constexpr float removal_cost(float w, float pivot) {
  float const ratio = w / pivot;
  return ratio * ratio > 3e38F ? 3e38F : ratio * ratio;
}

// Prunes by w² / R_jj² during the sweep: a share of every block of columns over all rows, or N of M within a row.
class pruning_chooser {
 public:
  pruning_chooser(executor* run_on, sparsity const& pattern, bool given, matrix_view<float const> factor, mask& kept,
                  quantized_matrix* grid_of, std::uint8_t* codes)
      : run_on_(run_on), pattern_(pattern), given_(given), factor_(factor), kept_(kept), grid_of_(grid_of), codes_(codes) {}

  void begin_block(matrix_view<float const> W, index_t begin, index_t end) {
    if (given_ || pattern_.structured()) return;
    index_t const n = W.extent(0), width = end - begin;
    scores_.resize(static_cast<std::size_t>(n * width));
    parallel_for(run_on_, ceil_div(n, 64), [&](index_t piece) {
      for (index_t r = piece * 64; r < std::min(n, (piece + 1) * 64); ++r)
        for (index_t j = begin; j < end; ++j)
          scores_[static_cast<std::size_t>(r * width + j - begin)] = removal_cost(W(r, j), factor_(j, j));
    });
    drop_lowest(scores_.data(), n * width, pattern_.pruned_of(n * width), keys_,
                [&](index_t i) { kept_.set(i / width, begin + i % width, false); });
  }

  void choose(sweep_tile const& tile, index_t j, float* target) {
    constexpr index_t lanes = sweep_tile::lanes;
    if (!given_ && pattern_.structured() && j % pattern_.of == 0) choose_group(tile, j);
    float const* const value = tile.column(j);
    for (index_t l = 0; l < lanes; ++l) {
      bool const keep = l < tile.rows && kept_(tile.first_row + l, j);
      target[l] = keep ? value[l] : 0.0F;
    }
    if (grid_of_ == nullptr) return;
    index_t const group = j / grid_of_->groups.block_columns(grid_of_->columns), tall = grid_of_->groups.block_rows(grid_of_->rows);
    for (index_t l = 0; l < tile.rows; ++l) {
      scale_and_zero const at = grid_of_->at((tile.first_row + l) / tall, group);
      std::uint32_t const code = grid_of_->grid.encode(target[l], at);
      codes_[(tile.first_row + l) * grid_of_->columns + j] = static_cast<std::uint8_t>(code);
      target[l] = grid_of_->grid.decode(code, at);
    }
  }

 private:
  void choose_group(sweep_tile const& tile, index_t j) {
    index_t const m = std::min(pattern_.of, tile.end - j);
    float scores[64];
    for (index_t l = 0; l < tile.rows; ++l) {
      for (index_t k = 0; k < m; ++k) scores[k] = removal_cost(tile.column(j + k)[l], factor_(j + k, j + k));
      std::uint64_t const bits = highest_bits(scores, m, pattern_.keep);
      for (index_t k = 0; k < m; ++k) kept_.set(tile.first_row + l, j + k, (bits >> k & 1U) != 0);
    }
  }

  executor* run_on_;
  sparsity pattern_;
  bool given_;
  matrix_view<float const> factor_;
  mask& kept_;
  quantized_matrix* grid_of_;
  std::uint8_t* codes_;
  std::vector<float> scores_;
  std::vector<std::uint64_t> keys_;
};

static_assert(column_chooser<pruning_chooser>);

// Wanda without update, rounded where a grid is asked for: the fallback and the standard to beat.
template <host_backend B, class T>
sparsegpt_result prune_without_update(B const& backend, matrix_view<T const> W, matrix_view<float const> H, bool use_hessian,
                                      sparsegpt_options const& options) {
  index_t const n = W.extent(0), c = W.extent(1);
  sparsegpt_result out;
  buffer<float> moments(c, 0.0F);
  if (use_hessian)
    for (index_t j = 0; j < c; ++j) moments[j] = H(j, j);
  out.kept = options.given != nullptr ? options.given->clone()
                                      : wanda_mask(backend, W, vector_view<float const>(moments.data(), c), options.pattern);
  out.weight = matrix<float>(n, c);
  for_rows(backend.run_on(), n, [&](index_t r) {
    for (index_t j = 0; j < c; ++j) out.weight(r, j) = out.kept(r, j) ? static_cast<float>(W(r, j)) : 0.0F;
  });
  if (options.quantize) {
    out.quantized = rtn(backend, out.weight, *options.quantize);
    dequantize(out.quantized->view(), out.weight.view());
  }
  return out;
}

template <host_backend B, class T>
std::vector<double> changed_errors(B const& backend, matrix_view<T const> W, matrix_view<float const> changed, matrix_view<float const> H) {
  constexpr index_t strip = 512;
  std::vector<double> errors(static_cast<std::size_t>(W.extent(0)));
  matrix<float> difference(std::min(strip, W.extent(0)), W.extent(1));
  for (index_t first = 0; first < W.extent(0); first += strip) {
    index_t const n = std::min(strip, W.extent(0) - first);
    for_rows(backend.run_on(), n, [&](index_t i) {
      for (index_t k = 0; k < W.extent(1); ++k) difference(i, k) = changed(first + i, k) - static_cast<float>(W(first + i, k));
    });
    hessian_errors(backend, as_const(rows(difference.view(), 0, n)), H, vector_view<double>(errors.data() + first, n));
  }
  return errors;
}

}  // namespace detail

/// SparseGPT (Frantar and Alistarh 2023, arXiv 2301.00774): in every block of columns prune the elements with the least
/// w² / R_jj² (of the whole block over all rows, or all but N of every M inputs of a row when they are reached), then sweep: pruned
/// weights become zero (kept ones stay, or are rounded to the grid), e = (w - q) / R_jj, w_k -= e R_jk. R is the upper factor of the damped
/// inverse Hessian, from one reversed Cholesky.
///
/// weight: [out, in], float, bfloat16 or float16; hessian: [in, in]. Deviations: dead inputs keep their weights (or lose them by |w| as others
/// do) instead of becoming zero; with N:M, rows where Wanda without update has the smaller error on `hessian` take that; a Hessian that
/// is zero, not finite or never definite gives Wanda's mask, or magnitude without any activity. Blocks are cut at multiples of M.
/// Zero is a value of every uniform grid, so pruned weights stay exactly zero. A backend may have `sparsegpt(W, hessian, options)` of
/// its own, which returns nothing for what is to be done here. Throws `input_error` naming the first NaN or Inf of W.
/// Cost in² out + (2/3) in³ multiply-adds and twice in² out / 2 for the comparison. Byte-identical for any executor.
template <host_backend B, matrix_like M>
[[nodiscard]] sparsegpt_result sparsegpt(B const& backend, M&& weight, matrix_view<float const> hessian,
                                         sparsegpt_options const& options = {}) {
  auto const W = as_const_matrix(weight);
  using T = typename std::remove_cvref_t<decltype(W)>::value_type;
  index_t const n = W.extent(0), c = W.extent(1);
  if (options.given != nullptr) {
    expects_equal(options.given->rows(), n, "sparsegpt", "rows of the mask");
    expects_equal(options.given->columns(), c, "sparsegpt", "columns of the mask");
  } else {
    options.pattern.check();
  }
  expects_equal(hessian.extent(0), c, "sparsegpt", "rows of the Hessian");
  expects_equal(hessian.extent(1), c, "sparsegpt", "columns of the Hessian");
  bool const structured = options.given == nullptr && options.pattern.structured();
  expects(!structured || options.block >= options.pattern.of, "sparsegpt", "the block must hold a whole N:M group");
  if constexpr (requires { backend.sparsegpt(W, hessian, options); })
    if (auto done = backend.sparsegpt(W, hessian, options)) return std::move(*done);
  detail::name_non_finite<T>(W, "sparsegpt");
  prepared_hessian prepared = prepare_hessian(backend, hessian, column_order::natural, options.damp);
  auto fill = [&](sparsegpt_report& report) {
    report.second_order = prepared.usable;
    report.hessian_finite = prepared.finite;
    report.damp = prepared.damp;
    report.damp_step = prepared.damp_step;
    report.dead_columns = prepared.dead;
  };
  if (!prepared.usable) {
    auto plain = detail::prune_without_update<B, T>(backend, W, hessian, prepared.finite, options);
    fill(plain.report);
    if (prepared.finite)
      for (double const e : detail::changed_errors<B, T>(backend, W, as_const(plain.weight.view()), hessian)) plain.report.error += e;
    return plain;
  }
  sparsegpt_result out;
  fill(out.report);
  out.kept = options.given != nullptr ? options.given->clone() : mask(n, c);
  out.weight = matrix<float>(n, c);
  detail::for_rows(backend.run_on(), n, [&](index_t r) { detail::gather_row<T>(row(W, r), &out.weight(r, 0)); });
  buffer<std::uint8_t> codes;
  if (options.quantize) {
    quantize_options const& q = *options.quantize;
    out.quantized.emplace(n, c, q.grid, q.groups, q.scales_stored_as);
    codes = buffer<std::uint8_t>(n * c);
    std::vector<float> column_weights(static_cast<std::size_t>(c));
    for (index_t j = 0; j < c; ++j) column_weights[static_cast<std::size_t>(j)] = 1.0F / (prepared.factor(j, j) * prepared.factor(j, j));
    bool const weighted = q.scale == scale_rule::weighted;
    (void)detail::quantize_rows<T>(backend.run_on(), W, q, weighted ? column_weights.data() : nullptr, false, *out.quantized);
  }
  index_t const block = structured ? options.block / options.pattern.of * options.pattern.of : options.block;
  buffer<double> losses(n);
  detail::pruning_chooser chooser(backend.run_on(), options.pattern, options.given != nullptr, as_const(prepared.factor.view()), out.kept,
                                  out.quantized ? &*out.quantized : nullptr, codes.data());
  column_sweep(backend, out.weight.view(), as_const(prepared.factor.view()), sweep_blocks(c, block, 0), chooser,
               vector_view<double>(losses.data(), n));
  prepared = prepared_hessian{};
  if (out.quantized)
    detail::for_rows(backend.run_on(), n, [&](index_t r) { out.quantized->set_row(r, codes.data() + r * c); });
  auto errors = detail::changed_errors<B, T>(backend, W, as_const(out.weight.view()), hessian);
  bool const by_row = (structured || options.given != nullptr) && !(out.quantized && out.quantized->groups.kind == group_kind::tensor);
  if (by_row) {
    auto const plain = detail::prune_without_update<B, T>(backend, W, hessian, true, options);
    auto const plain_errors = detail::changed_errors<B, T>(backend, W, as_const(plain.weight.view()), hessian);
    for (index_t r = 0; r < n; ++r) {
      std::size_t const at = static_cast<std::size_t>(r);
      if (!(plain_errors[at] < errors[at])) continue;
      errors[at] = plain_errors[at];
      ++out.report.rows_kept_wanda;
      for (index_t w = 0; w < out.kept.words_per_row(); ++w) out.kept.word(r, w) = plain.kept.word(r, w);
      for (index_t j = 0; j < c; ++j) out.weight(r, j) = plain.weight(r, j);
      if (!out.quantized) continue;
      for (index_t w = 0; w < out.quantized->words.extent(1); ++w) out.quantized->words(r, w) = plain.quantized->words(r, w);
      for (index_t g = 0; g < out.quantized->scales.extent(1); ++g) out.quantized->set(r, g, plain.quantized->at(r, g));
    }
  }
  for (double const e : errors) out.report.error += e;
  return out;
}

}  // namespace v0
}  // namespace slimtrim
