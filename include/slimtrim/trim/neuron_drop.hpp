// Neuron drop: intermediate neurons go inside every expert, to one width that stock loaders accept.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/statistics/neuron_energies.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// S_k = sum over x routed to the expert of (g(x) h_k(x))^2 * |down_k|^2: the energy that neuron k adds to the output.
///
/// HEAPr, arXiv 2509.22299, with the identity in place of the gradient covariance G (no backward pass).
/// down_square: [width], squared norms of the columns of the down projection [hidden, width]. Low = remove first.
[[nodiscard]] inline std::vector<double> neuron_scores(neuron_energies const& energies, index_t expert,
                                                       std::span<double const> down_square) {
  expects(expert >= 0 && expert < energies.experts(), "neuron_scores",
          "expert: expected an index below the number of experts");
  expects_equal(static_cast<long long>(down_square.size()), energies.width(), "neuron_scores", "length of down_square");
  std::vector<double> scores(down_square.size());
  for (std::size_t k = 0; k < scores.size(); ++k)
    scores[k] = energies.weighted(expert, static_cast<index_t>(k)) * down_square[k];
  return scores;
}

/// The `width` neurons of highest score of one expert, ascending. Ties keep the lower index.
///
/// The same neurons are kept in the rows of gate and up and in the columns of down. Throws `error` unless
/// 1 <= width <= scores.size(), or on a NaN score.
[[nodiscard]] inline std::vector<index_t> neuron_drop(std::span<double const> scores, index_t width) {
  auto const have = static_cast<index_t>(scores.size());
  if (width < 1 || width > have)
    throw error("neuron_drop: width: expected 1 .. " + std::to_string(have) + ", found " + std::to_string(width));
  for (double const score : scores) expects(!std::isnan(score), "neuron_drop", "scores: expected numbers, found NaN");
  std::vector<index_t> order(scores.size());
  std::iota(order.begin(), order.end(), index_t{0});
  std::stable_sort(order.begin(), order.end(), [&](index_t a, index_t b) {
    return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
  });
  order.resize(static_cast<std::size_t>(width));
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace v0
}  // namespace slimtrim
