// Second-order slimming as the papers write it, in float64, one column after another, with the explicit inverse: the
// independent implementation that the fast one is measured against.
#pragma once

#include "support.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace slimtrim_test {

using dense = std::vector<std::vector<double>>;

/// Upper factor R of the inverse of H + damp * mean diagonal (H⁻¹ = Rᵀ R), by Gauss-Jordan and a textbook Cholesky.
inline dense upper_factor_of_inverse(matrix<float> const& H, std::vector<index_t> const& order, double damp) {
  std::size_t const c = order.size();
  double mean = 0;
  for (index_t i = 0; i < H.extent(0); ++i) mean += static_cast<double>(H(i, i)) / static_cast<double>(c);
  dense a(c, std::vector<double>(2 * c, 0.0));
  for (std::size_t i = 0; i < c; ++i) {
    for (std::size_t j = 0; j < c; ++j) a[i][j] = static_cast<double>(H(order[i], order[j])) + (i == j ? damp * mean : 0.0);
    a[i][c + i] = 1;
  }
  for (std::size_t p = 0; p < c; ++p) {
    std::size_t best = p;
    for (std::size_t i = p; i < c; ++i)
      if (std::fabs(a[i][p]) > std::fabs(a[best][p])) best = i;
    std::swap(a[p], a[best]);
    double const pivot = a[p][p];
    for (double& x : a[p]) x /= pivot;
    for (std::size_t i = 0; i < c; ++i) {
      if (i == p) continue;
      double const factor = a[i][p];
      for (std::size_t j = 0; j < 2 * c; ++j) a[i][j] -= factor * a[p][j];
    }
  }
  dense R(c, std::vector<double>(c, 0.0));
  for (std::size_t i = 0; i < c; ++i)
    for (std::size_t j = i; j < c; ++j) {
      double sum = a[i][c + j];
      for (std::size_t k = 0; k < i; ++k) sum -= R[k][i] * R[k][j];
      R[i][j] = i == j ? std::sqrt(sum) : sum / R[i][i];
    }
  return R;
}

/// For each row, for each column of `order`: q = choose(row, position, present row in that order, R); the error moves on.
inline dense textbook_sweep(matrix<float> const& W, std::vector<index_t> const& order, dense const& R,
                            std::function<double(std::size_t, std::size_t, std::vector<double> const&)> const& choose) {
  std::size_t const n = static_cast<std::size_t>(W.extent(0)), c = order.size();
  dense Q(n, std::vector<double>(c, 0.0));
  for (std::size_t r = 0; r < n; ++r) {
    std::vector<double> w(c);
    for (std::size_t j = 0; j < c; ++j) w[j] = static_cast<double>(W(static_cast<index_t>(r), order[j]));
    for (std::size_t j = 0; j < c; ++j) {
      double const q = choose(r, j, w);
      double const e = (w[j] - q) / R[j][j];
      for (std::size_t k = j; k < c; ++k) w[k] -= e * R[j][k];
      Q[r][static_cast<std::size_t>(order[j])] = q;
    }
  }
  return Q;
}

inline std::vector<index_t> natural_order(index_t c) {
  std::vector<index_t> order(static_cast<std::size_t>(c));
  for (std::size_t j = 0; j < order.size(); ++j) order[j] = static_cast<index_t>(j);
  return order;
}

inline std::vector<index_t> activation_order(matrix<float> const& H) {
  auto order = natural_order(H.extent(0));
  std::stable_sort(order.begin(), order.end(), [&](index_t a, index_t b) { return H(a, a) > H(b, b); });
  return order;
}

}  // namespace slimtrim_test
