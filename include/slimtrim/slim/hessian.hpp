// The Hessian H = sum of x xᵀ of a linear layer, made fit for second-order slimming: scaled, damped, ordered, factored.
//
// Nothing here throws for a bad Hessian: an expert may have seen no token, one token, or an overflow. What was done is
// reported, and the caller falls back to what needs no Hessian.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/core/executor.hpp>
#include <slimtrim/linalg/inverse_factor.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// natural: columns as stored. activation: largest diagonal of H first, ties to the lower column.
enum class column_order { natural, activation };

/// Added to the diagonal: `first` times its mean; on failure ten times more, up to `steps` times.
struct damping {
  double first = 0.01;
  int steps = 6;
};

/// A Hessian ready for a column sweep. H ~ unit * normalised, and with P the order of the columns
/// P (normalised + damp * identity) Pᵀ = U Uᵀ, factor = U⁻¹, so that its inverse is factorᵀ factor.
struct prepared_hessian {
  bool usable = false;            // false: not finite, all zero, or no damping of the ladder made it definite
  bool finite = true;             // false: an element is NaN or Inf
  double unit = 0;                // mean of the live diagonal
  double damp = 0;                // relative to `unit`
  int damp_step = 0;              // how often the first damping was raised
  index_t dead = 0;               // columns whose diagonal is not positive
  buffer<std::int32_t> order;     // [c] position in the sweep -> column
  std::vector<char> is_dead;      // [c] by column
  matrix<float> damped;           // [c, c] normalised and damped, in sweep order
  matrix<float> factor;           // [c, c] upper triangular R, in sweep order
};

namespace detail {

inline bool all_finite(matrix_view<float const> H) {
  for (index_t i = 0; i < H.extent(0); ++i)
    for (index_t j = 0; j < H.extent(1); ++j)
      if (!std::isfinite(H(i, j))) return false;
  return true;
}

}  // namespace detail

/// Normalises H to a mean diagonal of one, so that 1e-30 and 1e30 behave alike; gives dead columns (diagonal not
/// positive) a diagonal of one and no ties to others, so that they are rounded and never move; climbs the damping ladder.
/// From 768 columns on the factor is formed in single precision (inverse_factor_single), below in the backend's double.
///
/// H: [c, c], symmetric, the sum or mean over tokens (any positive factor). Cost: (2/3) c^3 an attempt in the backend's
/// inverse_factor; memory 2 c^2 floats plus the backend's scratch. Deterministic. Throws only when H is not square.
template <host_backend B>
[[nodiscard]] prepared_hessian prepare_hessian(B const& backend, matrix_view<float const> H, column_order order,
                                               damping const& ladder = {}) {
  index_t const c = H.extent(0);
  expects_equal(H.extent(1), c, "prepare_hessian", "columns of a square Hessian");
  prepared_hessian out;
  out.order = buffer<std::int32_t>(c);
  std::iota(out.order.begin(), out.order.end(), 0);
  out.is_dead.assign(static_cast<std::size_t>(c), 0);
  out.finite = detail::all_finite(H);
  if (c == 0 || !out.finite) return out;
  double sum = 0;
  for (index_t i = 0; i < c; ++i) {
    if (H(i, i) > 0) {
      sum += static_cast<double>(H(i, i));
    } else {
      out.is_dead[static_cast<std::size_t>(i)] = 1;
      ++out.dead;
    }
  }
  if (out.dead == c) return out;
  out.unit = sum / static_cast<double>(c - out.dead);
  double const inverse = 1.0 / out.unit;
  if (!std::isfinite(inverse)) return out;
  if (order == column_order::activation)
    std::stable_sort(out.order.begin(), out.order.end(), [&](std::int32_t a, std::int32_t b) { return H(a, a) > H(b, b); });
  out.damped = matrix<float>(c, c);
  out.factor = matrix<float>(c, c);
  parallel_for(backend.run_on(), ceil_div(c, 64), [&](index_t piece) {
    for (index_t i = piece * 64; i < std::min(c, (piece + 1) * 64); ++i) {
      index_t const from = out.order[i];
      bool const dead = out.is_dead[static_cast<std::size_t>(from)] != 0;
      for (index_t j = 0; j < c; ++j) {
        index_t const to = out.order[j];
        bool const cut = dead || out.is_dead[static_cast<std::size_t>(to)] != 0;
        out.damped(i, j) = cut ? (i == j ? 1.0F : 0.0F) : static_cast<float>(static_cast<double>(H(from, to)) * inverse);
      }
    }
  });
  constexpr index_t single_precision_from = 768;
  double added = 0;
  double damp = ladder.first;
  for (out.damp_step = 0; out.damp_step <= ladder.steps; ++out.damp_step, damp *= 10) {
    for (index_t i = 0; i < c; ++i)
      if (out.is_dead[static_cast<std::size_t>(out.order[i])] == 0) out.damped(i, i) += static_cast<float>(damp - added);
    added = damp;
    // Large factors in single precision, which the damping allows; in double where that fails.
    if ((c >= single_precision_from && inverse_factor_single(backend, as_const(out.damped.view()), out.factor.view())) ||
        backend.inverse_factor(as_const(out.damped.view()), out.factor.view())) {
      out.damp = damp;
      out.usable = true;
      break;
    }
  }
  return out;
}

/// per_row[r] = D_r H D_rᵀ, the squared output error over the tokens of H when row r of the weight moves by D_r.
///
/// D: [n, c]; H: [c, c] symmetric; per_row: [n]. n c^2 multiply-adds are saved against the plain product by using the symmetry.
/// Sums in float within a row of a panel of 256 columns, in double between panels. Scratch n x 256 floats.
template <host_backend B>
void hessian_errors(B const& backend, matrix_view<float const> D, matrix_view<float const> H, vector_view<double> per_row) {
  index_t const n = D.extent(0), c = D.extent(1);
  constexpr index_t panel = 256;
  matrix<float> product(n, std::min(panel, c));
  buffer<float> dots(n);
  for (index_t i = 0; i < n; ++i) per_row(i) = 0;
  for (index_t first = 0; first < c; first += panel) {
    index_t const width = std::min(panel, c - first);
    auto const here = columns(D, first, width);
    auto out = columns(product.view(), 0, width);
    backend.gemm(1.0F, here, columns(rows(H, first, width), first, width), 0.0F, out);
    if (first > 0) backend.gemm(2.0F, columns(D, 0, first), columns(rows(H, 0, first), first, width), 1.0F, out);
    backend.row_dots(here, as_const(out), vector_view<float>(dots.data(), n));
    for (index_t i = 0; i < n; ++i) per_row(i) += static_cast<double>(dots[i]);
  }
}

/// What was done about an expert's Hessian for want of tokens.
enum class hessian_source { own, pooled, diagonal, none };

/// Token counts below which an expert's own Hessian is not trusted alone, relative to its columns c:
/// from `enough` * c tokens on it is used as it is; below, it is blended with the layer's pooled one, weight
/// tokens / (enough * c); when there is no pool, or even the pool has fewer than `pool_enough` * c tokens, only the diagonal is
/// borrowed; without any token there is nothing, and the caller rounds to nearest.
struct shrinkage {
  double enough = 1.0;
  double pool_enough = 0.25;
};

/// Shrinks an under-fed expert's Hessian, in place.
///
/// own: [c, c], the sum over `tokens` tokens; pooled: the sum over `pooled_tokens` tokens of all experts of the layer, or an
/// empty view where none fits. On return `own` is a mean over tokens (a sum for hessian_source::own). H = a own / n + (1 - a) target
/// with a = tokens / (enough c) and target = pooled / m, its diagonal where the pool is thin, or the diagonal of own / n without a
/// pool; after Ledoit and Wolf (2004) with a fixed intensity instead of an estimated one.
/// own_weight: n, where the tokens in `own` are weighted: the sum of their squared weights; 0: tokens.
template <class B>
hessian_source shrink_hessian(B const& backend, matrix_view<float> own, double tokens, matrix_view<float const> pooled,
                              double pooled_tokens, shrinkage const& rule = {}, double own_weight = 0) {
  index_t const c = own.extent(0);
  double const wanted = rule.enough * static_cast<double>(c);
  if (tokens >= wanted && tokens > 0) return hessian_source::own;
  bool const pool = pooled.data != nullptr && pooled_tokens > 0 && detail::all_finite(pooled);
  if (pool) expects_equal(pooled.extent(0), c, "shrink_hessian", "rows of the pooled Hessian");
  if (!(tokens > 0) && !pool) return hessian_source::none;
  bool const usable = tokens > 0 && detail::all_finite(as_const(own));
  double const a = usable ? tokens / wanted : 0.0, n = own_weight > 0 ? own_weight : tokens;
  bool const diagonal_only = !pool || pooled_tokens < rule.pool_enough * static_cast<double>(c);
  if (!usable && !pool) return hessian_source::none;
  parallel_for(backend.run_on(), ceil_div(c, 64), [&](index_t piece) {
    for (index_t i = piece * 64; i < std::min(c, (piece + 1) * 64); ++i)
      for (index_t j = 0; j < c; ++j) {
        double const mean = usable ? static_cast<double>(own(i, j)) / n : 0.0;
        double target = pool ? static_cast<double>(pooled(i, j)) / pooled_tokens : mean;
        if (diagonal_only && i != j) target = 0.0;
        own(i, j) = static_cast<float>(a * mean + (1.0 - a) * target);
      }
  });
  return diagonal_only ? hessian_source::diagonal : hessian_source::pooled;
}

}  // namespace v0
}  // namespace slimtrim
