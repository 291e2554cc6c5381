// Residual fitting: move a matrix that writes into the residual stream, in closed form, towards what the original stream
// still has and the changed model lacks.
//
// Everything is said in terms of the *remaining* residual E = (what the output should be) - Z W_oldᵀ, so that E = 0 leaves the
// weights exactly as they are. Sums over tokens can be streamed: the fit needs only Zᵀ Z, Zᵀ E and ||E||².
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/core/executor.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

[[nodiscard]] inline bool all_finite(matrix<float> const& values) {
  for (index_t i = 0; i < values.extent(0); ++i)
    for (index_t j = 0; j < values.extent(1); ++j)
      if (!std::isfinite(values(i, j))) return false;
  return true;
}

}  // namespace detail

/// What a set of tokens says about a fit. gram = sum of z zᵀ: [in, in]; cross = sum of z eᵀ: [in, out];
/// energy = sum of ||e||². Sums, so parts add up. A change of the weight is kept as Dᵀ: [in, out].
struct residual_moments {
  using change_type = matrix<float>;

  matrix<float> gram;
  matrix<float> cross;
  double energy = 0;

  residual_moments() = default;
  residual_moments(index_t in, index_t out) : gram(in, in), cross(in, out) {
    gram.fill(0.0F);
    cross.fill(0.0F);
  }

  /// Adds a batch. Z: [tokens, in] features of the changed model, E: [tokens, out] what its output still lacks.
  template <host_backend B>
  void add(B const& backend, matrix_view<float const> Z, matrix_view<float const> E) {
    expects_equal(Z.extent(0), E.extent(0), "residual_moments::add", "tokens of the residual");
    expects_equal(Z.extent(1), gram.extent(0), "residual_moments::add", "features");
    expects_equal(E.extent(1), cross.extent(1), "residual_moments::add", "outputs");
    if (Z.extent(0) == 0) return;
    backend.gram_update(1.0F, Z, gram.view());
    backend.gemm(1.0F, transposed(Z), E, 1.0F, cross.view());
    for (index_t t = 0; t < E.extent(0); ++t) energy += backend.template dot<float>(row(E, t), row(E, t));
  }
  /// Adds what other tokens say.
  template <host_backend B>
  void add(B const&, residual_moments const& other) {
    for (index_t i = 0; i < gram.extent(0); ++i) {
      for (index_t j = 0; j < gram.extent(1); ++j) gram(i, j) += other.gram(i, j);
      for (index_t j = 0; j < cross.extent(1); ++j) cross(i, j) += other.cross(i, j);
    }
    energy += other.energy;
  }

  /// sum over tokens of ||e - D z||² = energy - 2 <Dᵀ, cross> + tr(D gram Dᵀ).
  template <host_backend B>
  [[nodiscard]] double error_after(B const& backend, matrix<float> const& change_t) const {
    index_t const in = change_t.extent(0), out = change_t.extent(1);
    constexpr index_t panel = 256;
    matrix<float> product(std::min(panel, in), out);
    buffer<float> dots(panel);
    double sum = energy;
    for (index_t first = 0; first < in; first += panel) {
      index_t const n = std::min(panel, in - first);
      auto part = rows(product.view(), 0, n);
      // 2 cross - gram change, so that one dot per row gives both terms.
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < out; ++j) part(i, j) = 2.0F * cross(first + i, j);
      backend.gemm(-1.0F, rows(gram.view(), first, n), change_t.view(), 1.0F, part);
      backend.row_dots(rows(change_t.view(), first, n), as_const(part), vector_view<float>(dots.data(), n));
      for (index_t i = 0; i < n; ++i) sum -= static_cast<double>(dots[i]);
    }
    return sum;
  }

  template <host_backend B>
  [[nodiscard]] bool finite(B const&) const {
    return detail::all_finite(gram) && detail::all_finite(cross) && std::isfinite(energy);
  }
  template <host_backend B>
  [[nodiscard]] double mean_diagonal(B const&) const {
    double sum = 0;
    for (index_t i = 0; i < gram.extent(0); ++i) sum += static_cast<double>(gram(i, i));
    return gram.extent(0) > 0 ? sum / static_cast<double>(gram.extent(0)) : 0.0;
  }
  /// (gram + lambda I) Dᵀ = cross; false when that cannot be solved to finite numbers.
  template <host_backend B>
  [[nodiscard]] bool solve(B const& backend, double lambda, matrix<float>& change_t) const {
    auto system = gram.clone();
    for (index_t i = 0; i < system.extent(0); ++i) system(i, i) += static_cast<float>(lambda);
    change_t = cross.clone();
    return backend.solve_positive_definite(system.view(), change_t.view()) && detail::all_finite(change_t);
  }
  /// As if the change had not been made: e + D z instead of e.
  template <host_backend B>
  void take_back(B const& backend, matrix<float> const& change_t) {
    matrix<float> opposite(change_t.extent(0), change_t.extent(1));
    for (index_t i = 0; i < change_t.extent(0); ++i)
      for (index_t j = 0; j < change_t.extent(1); ++j) opposite(i, j) = -change_t(i, j);
    energy = error_after(backend, opposite);
    backend.gemm(-1.0F, as_const(gram.view()), as_const(opposite.view()), 1.0F, cross.view());
  }
};

/// ridges: lambda relative to `unit`, or to the mean of the Gram diagonal where that is zero. With held-out moments the one with the least held-out
/// error is taken, "no change" among the choices; without, the first.
struct residual_fit_options {
  std::vector<double> ridges{0.1, 0.03, 0.01, 0.3, 1.0};
  double unit = 0;
};

struct residual_fit_report {
  bool changed = false;
  double ridge = 0;              // the one taken, relative; 0 when nothing changed
  double energy = 0;             // ||E||² on the tokens fitted to
  double error = 0;              // the same after the fit
  double held_out_energy = 0;    // on the held-out tokens, 0 without them
  double held_out_error = 0;
};

namespace detail {

inline void check_fit_options(residual_fit_options const& options) {
  expects(!options.ridges.empty(), "residual_fit", "no ridge is given");
  for (double const r : options.ridges) expects(r > 0 && std::isfinite(r), "residual_fit", "a ridge must be positive");
}

// What residual_fit and fit_split decide, for moments of any memory: `Moments` has the members of residual_moments, `on` is what they
// compute with. `best` is the change chosen, untouched unless the report says so.
template <class On, class Moments>
residual_fit_report choose_change(On& on, Moments const& fitted, Moments const* held_out, residual_fit_options const& options,
                                  typename Moments::change_type& best) {
  residual_fit_report report;
  report.energy = report.error = fitted.energy;
  if (held_out != nullptr) report.held_out_energy = report.held_out_error = held_out->energy;
  double const unit = options.unit > 0 ? options.unit : fitted.mean_diagonal(on);
  if (!(fitted.energy > 0) || !(unit > 0) || !fitted.finite(on)) return report;
  if (held_out != nullptr && !held_out->finite(on)) return report;
  for (double const ridge : options.ridges) {
    typename Moments::change_type change;
    if (!fitted.solve(on, ridge * unit, change)) continue;
    double const judged = (held_out != nullptr ? *held_out : fitted).error_after(on, change);
    double const present = held_out != nullptr ? report.held_out_error : report.error;
    if (!(judged < present)) continue;
    (held_out != nullptr ? report.held_out_error : report.error) = judged;
    report.changed = true;
    report.ridge = ridge;
    best = std::move(change);
    if (held_out == nullptr) break;
  }
  if (report.changed && held_out != nullptr) report.error = fitted.error_after(on, best);
  return report;
}

// `Split` has the members of split_moments.
template <class On, class Split, class Change>
residual_fit_report choose_split_change(On& on, Split& moments, residual_fit_options const& options, Change& best) {
  if (!moments.judged) return choose_change(on, moments.fitted, static_cast<decltype(&moments.fitted)>(nullptr), options, best);
  residual_fit_report report = choose_change(on, moments.fitted, &moments.held_out, options, best);
  if (!report.changed) return report;
  moments.fitted.add(on, moments.held_out);
  choose_change(on, moments.fitted, static_cast<decltype(&moments.fitted)>(nullptr), {.ridges = {report.ridge}, .unit = options.unit}, best);
  return report;
}

inline void add_change(matrix<float> const& change_t, matrix_view<float> weight) {
  for (index_t i = 0; i < weight.extent(0); ++i)
    for (index_t j = 0; j < weight.extent(1); ++j) weight(i, j) += change_t(j, i);
}

}  // namespace detail

/// W* = argmin over W of ||Z Wᵀ - R||² + lambda ||W - W_old||², written as a change: W* = W_old + D with
/// Dᵀ = (ZᵀZ + lambda I)⁻¹ Zᵀ E, E = R - Z W_oldᵀ.
///
/// fitted: moments of the tokens to fit; held_out: of others, or null; weight: [out, in], updated in place.
/// For the joint form over the experts of a layer, Z holds the gate-weighted hidden activations of all experts side by
/// side and `weight` their down projections side by side.
/// With held-out moments the ridge with the least held-out ||E - Z Dᵀ||² is taken, and nothing changes unless that is below the
/// energy. A residual of zero, moments that are not finite, or a system that cannot be solved change nothing. Never writes a NaN.
/// Cost per ridge: one factorisation in³/3 to (2/3) in³ and 2 in² out multiply-adds; scratch 2 (in² + in out) floats and the backend's.
/// Byte-identical for any executor. Throws `error` for shapes.
template <host_backend B>
residual_fit_report residual_fit(B const& backend, residual_moments const& fitted, residual_moments const* held_out,
                                 matrix_view<float> weight, residual_fit_options const& options = {}) {
  index_t const in = fitted.gram.extent(0), out = fitted.cross.extent(1);
  expects_equal(weight.extent(0), out, "residual_fit", "rows of the weight");
  expects_equal(weight.extent(1), in, "residual_fit", "columns of the weight");
  detail::check_fit_options(options);
  if (held_out != nullptr) {
    expects_equal(held_out->gram.extent(0), in, "residual_fit", "held-out features");
    expects_equal(held_out->cross.extent(1), out, "residual_fit", "held-out outputs");
  }
  matrix<float> change_t;
  residual_fit_report const report = detail::choose_change(backend, fitted, held_out, options, change_t);
  if (report.changed) detail::add_change(change_t, weight);
  return report;
}

/// Moments of a fit, split into the tokens that are fitted to and those that judge.
struct split_moments {
  residual_moments fitted{};
  residual_moments held_out{};
  bool judged = false;  ///< whether any token was held out

  split_moments() = default;
  split_moments(index_t in, index_t out) : fitted(in, out), held_out(in, out) {}
};

/// Chooses the ridge on the held-out tokens, then fits to all tokens with it: the held-out moments are added to the fitted ones. Where
/// that last system cannot be solved, the change fitted to the others stands.
/// weight: [out, in], in place; nothing changes unless the held-out tokens gained. Errors and cost as `residual_fit`.
template <host_backend B>
residual_fit_report fit_split(B const& backend, split_moments& moments, matrix_view<float> weight,
                              residual_fit_options const& options) {
  expects_equal(weight.extent(0), moments.fitted.cross.extent(1), "residual_fit", "rows of the weight");
  expects_equal(weight.extent(1), moments.fitted.gram.extent(0), "residual_fit", "columns of the weight");
  detail::check_fit_options(options);
  matrix<float> change_t;
  residual_fit_report const report = detail::choose_split_change(backend, moments, options, change_t);
  if (report.changed) detail::add_change(change_t, weight);
  return report;
}

}  // namespace v0
}  // namespace slimtrim
