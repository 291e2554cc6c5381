// HOPE: experts that work on the same tokens are judged together, through a matrix of pairs.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/importance/criterion.hpp>

#include <cstddef>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// F_ij = (1/N_ij) sum over tokens that hold i and j of g_i |f_i| g_j |f_j|, row-major [experts, experts]; 0 where N_ij
/// = 0.
///
/// arXiv 2609.18916. Symmetric; F_jj is the mean squared weighted norm. Squared units of the residual stream. Cost experts².
[[nodiscard]] inline std::vector<double> hope_matrix(layer_statistics const& layer) {
  index_t const n = layer.experts();
  std::vector<double> result(static_cast<std::size_t>(n * n));
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < n; ++j)
      result[static_cast<std::size_t>(i * n + j)] =
          detail::ratio(layer.norms.pair(i, j), layer.router.coactivation(i, j));
  return result;
}

/// A set of removed experts and what it costs.
struct hope_selection {
  std::vector<index_t> removed;  ///< ascending
  double cost = 0;               ///< b^T F b for the indicator b of `removed`
};

namespace detail {

// What removing j adds to b^T F b, given what is removed already.
[[nodiscard]] inline double hope_increase(std::vector<double> const& matrix, std::vector<bool> const& removed,
                                          std::size_t j) {
  std::size_t const n = removed.size();
  double increase = matrix[j * n + j];
  for (std::size_t i = 0; i < n; ++i)
    if (removed[i] && i != j) increase += matrix[i * n + j] + matrix[j * n + i];
  return increase;
}

[[nodiscard]] inline std::size_t hope_cheapest(std::vector<double> const& matrix, std::vector<bool> const& removed) {
  std::size_t best = removed.size();
  double least = 0;
  for (std::size_t j = 0; j < removed.size(); ++j) {
    if (removed[j]) continue;
    double const increase = hope_increase(matrix, removed, j);
    if (best == removed.size() || increase < least) {
      best = j;
      least = increase;
    }
  }
  return best;
}

}  // namespace detail

/// The set of `count` experts with the least b^T F b: greedy, then pairwise swaps while one lowers the cost.
///
/// arXiv 2609.18916 relaxes the same problem and rounds; the search here ends in a set that no single swap improves.
/// matrix: [experts, experts] as from `hope_matrix`. Cost O(count * experts^2) plus O(experts^3) a swap. Deterministic,
/// ties to the lower index. Throws `error` unless 0 <= count <= experts.
[[nodiscard]] inline hope_selection hope_select(std::vector<double> const& matrix, index_t experts, index_t count) {
  auto const n = static_cast<std::size_t>(experts);
  expects(experts >= 0 && matrix.size() == n * n, "hope_select", "matrix: expected [experts, experts]");
  expects(count >= 0 && count <= experts, "hope_select", "count: expected 0 .. experts");
  std::vector<bool> removed(n, false);
  for (index_t i = 0; i < count; ++i) removed[detail::hope_cheapest(matrix, removed)] = true;
  // Each accepted swap lowers the cost by more than rounding, so the search ends; the bound is a guard.
  double scale = 0;
  for (double const value : matrix) scale += value < 0 ? -value : value;
  for (std::size_t round = 0; round < n * n; ++round) {
    double best_gain = 1e-12 * scale;
    std::size_t out = n, in = n;
    for (std::size_t i = 0; i < n; ++i) {
      if (!removed[i]) continue;
      double const saved = detail::hope_increase(matrix, removed, i);
      removed[i] = false;
      for (std::size_t j = 0; j < n; ++j) {
        if (removed[j] || j == i) continue;
        double const gain = saved - detail::hope_increase(matrix, removed, j);
        if (gain > best_gain) {
          best_gain = gain;
          out = i;
          in = j;
        }
      }
      removed[i] = true;
    }
    if (out == n) break;
    removed[out] = false;
    removed[in] = true;
  }
  hope_selection result;
  for (std::size_t i = 0; i < n; ++i) {
    if (!removed[i]) continue;
    result.removed.push_back(static_cast<index_t>(i));
    for (std::size_t j = 0; j < n; ++j)
      if (removed[j]) result.cost += matrix[i * n + j];
  }
  return result;
}

/// The greedy search as scores: S_j = what removing j added to b^T F b when its turn came. Low = removed early.
///
/// The kept set of a layer is better taken from `hope_select`, which also swaps. Squared units of the residual stream.
/// Cost O(experts^3).
struct hope_importance {
  static constexpr need needs = need::statistics;
  [[nodiscard]] std::vector<double> operator()(layer_statistics const& layer) const {
    std::vector<double> const matrix = hope_matrix(layer);
    std::vector<double> scores(static_cast<std::size_t>(layer.experts()), 0.0);
    std::vector<bool> removed(scores.size(), false);
    double last = 0;
    for (std::size_t i = 0; i < scores.size(); ++i) {
      std::size_t const j = detail::hope_cheapest(matrix, removed);
      double const increase = detail::hope_increase(matrix, removed, j);
      // Rounding must not put an expert before one that was removed earlier.
      last = increase > last ? increase : last;
      scores[j] = last;
      removed[j] = true;
    }
    return scores;
  }
};
static_assert(statistics_criterion<hope_importance>);

}  // namespace v0
}  // namespace slimtrim
