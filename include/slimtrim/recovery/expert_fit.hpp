// Residual fitting expert by expert: each one is fitted to what all the others leave, a few times over.
//
// The joint fit of a layer needs a Gram matrix of (experts x width)² entries, which real widths do not allow. Block
// Gauss-Seidel on the same objective needs one expert's, and the residual of every token.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/recovery/residual_fit.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// One expert's share of the residual: token_of[t] is the row of the residual that its feature row t adds to.
/// weight: [out, in_e], its down projection. `features(first, Z)` writes feature rows first .. first + Z.extent(0) - 1
/// (gate-weighted hidden activations) into Z: [count, in_e]; it is called again in every sweep and must give the same rows.
struct expert_features {
  std::vector<std::int32_t> token_of{};
  matrix_view<float> weight{};
  std::function<void(index_t first, matrix_view<float> Z)> features{};
};

/// Features that are in memory: [tokens of the expert, in_e].
[[nodiscard]] inline std::function<void(index_t, matrix_view<float>)> stored_features(matrix_view<float const> features) {
  return [features](index_t first, matrix_view<float> Z) {
    for (index_t t = 0; t < Z.extent(0); ++t)
      for (index_t j = 0; j < Z.extent(1); ++j) Z(t, j) = features(first + t, j);
  };
}

struct expert_fit_options {
  residual_fit_options fit{};  ///< with unit = 0 ridges are relative to each expert's own mean Gram diagonal
  int sweeps = 2;
  index_t rows_a_batch = 1024;  ///< feature rows at a time
};

namespace detail {

// Calls use(first, Z) for the feature rows of an expert, batch by batch.
template <class Use>
void for_feature_rows(expert_features const& expert, index_t rows_a_batch, Use&& use) {
  index_t const tokens = static_cast<index_t>(expert.token_of.size()), in = expert.weight.extent(1);
  matrix<float> Z(std::min(std::max<index_t>(rows_a_batch, 1), tokens), in);
  for (index_t first = 0; first < tokens; first += Z.extent(0)) {
    auto const part = rows(Z.view(), 0, std::min(Z.extent(0), tokens - first));
    expert.features(first, part);
    use(first, as_const(part));
  }
}

// Moments of one expert against the residual as it stands.
template <host_backend B>
[[nodiscard]] split_moments moments_of(B const& backend, expert_features const& expert, matrix_view<float const> residual,
                                       std::span<char const> held_out, index_t rows_a_batch) {
  index_t const in = expert.weight.extent(1), out = residual.extent(1);
  split_moments moments(in, out);
  for_feature_rows(expert, rows_a_batch, [&](index_t first, matrix_view<float const> Z) {
    for (int judging = 0; judging < 2; ++judging) {
      std::vector<index_t> chosen;
      for (index_t t = 0; t < Z.extent(0); ++t) {
        auto const token = static_cast<std::size_t>(expert.token_of[static_cast<std::size_t>(first + t)]);
        if ((!held_out.empty() && held_out[token] != 0) == (judging == 1)) chosen.push_back(t);
      }
      if (chosen.empty()) continue;
      index_t const n = static_cast<index_t>(chosen.size());
      matrix<float> features(n, in), lacking(n, out);
      for (index_t i = 0; i < n; ++i) {
        index_t const t = chosen[static_cast<std::size_t>(i)];
        index_t const token = expert.token_of[static_cast<std::size_t>(first + t)];
        for (index_t j = 0; j < in; ++j) features(i, j) = Z(t, j);
        for (index_t j = 0; j < out; ++j) lacking(i, j) = residual(token, j);
      }
      (judging == 1 ? moments.held_out : moments.fitted).add(backend, as_const(features.view()), as_const(lacking.view()));
      moments.judged = moments.judged || judging == 1;
    }
  });
  return moments;
}

// The sweeps of residual_fit_experts for experts of any memory. `Side` has
//   on                       what its moments compute with
//   reached(e)               whether anything is to be fitted for expert e
//   moments(e)               split moments of its tokens against the residual as it stands
//   move(e, from, to)        goes from one change of its weight to another: weight and residual; from may be empty
// and Side::change_type, empty() where there is none yet.
template <class Side>
std::vector<residual_fit_report> sweep_experts(Side& side, std::size_t experts, expert_fit_options const& options) {
  check_fit_options(options.fit);
  std::vector<residual_fit_report> reports(experts);
  std::vector<typename Side::change_type> changes(experts);  // Dᵀ so far
  for (int sweep = 0; sweep < options.sweeps; ++sweep)
    for (std::size_t e = 0; e < experts; ++e) {
      if (!side.reached(e)) continue;
      bool const before = !changes[e].empty();
      auto moments = side.moments(e);
      if (before) {
        moments.fitted.take_back(side.on, changes[e]);
        if (moments.judged) moments.held_out.take_back(side.on, changes[e]);
      }
      // The ridge is chosen once: later sweeps change little, and each candidate costs a factorisation.
      residual_fit_options fit = options.fit;
      if (before && reports[e].changed) fit.ridges = {reports[e].ridge};
      typename Side::change_type next;
      reports[e] = choose_split_change(side.on, moments, fit, next);
      if (!reports[e].changed && !before) continue;
      side.move(e, changes[e], next);
      changes[e] = std::move(next);
    }
  return reports;
}

template <host_backend B>
struct experts_on_host {
  using change_type = matrix<float>;

  B const& on;
  std::vector<expert_features>& experts;
  matrix_view<float> residual;
  std::span<char const> held_out;
  index_t rows_a_batch;

  [[nodiscard]] bool reached(std::size_t e) const { return !experts[e].token_of.empty() && experts[e].weight.extent(1) > 0; }
  [[nodiscard]] split_moments moments(std::size_t e) const {
    return moments_of(on, experts[e], as_const(residual), held_out, rows_a_batch);
  }
  void move(std::size_t e, matrix<float> const& from, matrix<float> const& to) const {
    expert_features& expert = experts[e];
    index_t const in = expert.weight.extent(1), out = residual.extent(1);
    matrix<float> step_t(in, out);
    for (index_t j = 0; j < in; ++j)
      for (index_t i = 0; i < out; ++i) {
        step_t(j, i) = (to.empty() ? 0.0F : to(j, i)) - (from.empty() ? 0.0F : from(j, i));
        expert.weight(i, j) += step_t(j, i);
      }
    for_feature_rows(expert, rows_a_batch, [&](index_t first, matrix_view<float const> Z) {
      matrix<float> moved(Z.extent(0), out);
      on.gemm(1.0F, Z, as_const(step_t.view()), 0.0F, moved.view());
      for (index_t t = 0; t < Z.extent(0); ++t) {
        index_t const token = expert.token_of[static_cast<std::size_t>(first + t)];
        for (index_t j = 0; j < out; ++j) residual(token, j) -= moved(t, j);
      }
    });
  }
};

}  // namespace detail

/// Block Gauss-Seidel over experts on ||E - sum_e Z_e D_eᵀ||² + lambda sum_e ||D_e||²: each D_e is solved for given all others,
/// `sweeps` times in expert order. With one ridge and one unit the sweeps tend to the joint fit of all experts side by side.
///
/// residual: [tokens, out], on entry what the layer's output still lacks (E), on return what it lacks after the fit; an expert's
/// output Z_e W_eᵀ is already part of the model. held_out: [tokens], nonzero where a token only judges each expert's ridge (its
/// step is then repeated on all tokens with the ridge that won, which later sweeps keep), or empty. Experts whose held-out tokens do not gain go back to
/// their old weights, and so stay those without tokens. Each step lowers the objective of the tokens fitted to.
/// Memory: 2 to 4 (in_e² + in_e out) floats for one expert at a time, plus the changes (in_e out each). Cost per sweep and expert: twice
/// its features, tokens (in_e² / 2 + 2 in_e out), and residual_fit. Returns the last report of every expert.
/// Deterministic: experts in order, tokens in order; byte-identical for any executor. Throws `error` for shapes and tokens outside.
template <host_backend B>
std::vector<residual_fit_report> residual_fit_experts(B const& backend, std::vector<expert_features>& experts,
                                                      matrix_view<float> residual, std::span<char const> held_out = {},
                                                      expert_fit_options const& options = {}) {
  index_t const out = residual.extent(1);
  if (!held_out.empty())
    expects_equal(static_cast<long long>(held_out.size()), residual.extent(0), "residual_fit_experts", "marks of held-out tokens");
  for (auto const& expert : experts) {
    expects_equal(expert.weight.extent(0), out, "residual_fit_experts", "outputs of an expert");
    for (std::int32_t const t : expert.token_of)
      expects(t >= 0 && t < residual.extent(0), "residual_fit_experts", "token outside the residual");
  }
  detail::experts_on_host<B> side{backend, experts, residual, held_out, options.rows_a_batch};
  return detail::sweep_experts(side, experts.size(), options);
}

}  // namespace v0
}  // namespace slimtrim
