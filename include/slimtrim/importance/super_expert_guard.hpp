// A guard, not a score: experts whose outputs reach extreme values carry the model's massive activations and must stay.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct super_expert_options {
  double percentile = 0.995;      ///< of the largest magnitudes of all experts of all layers
  double share_of_largest = 0.1;  ///< of the largest of all
  double layer_share = 0.75;      ///< only the first layers can hold super-experts
};

/// Whether each expert must be kept: a_lj > max(quantile(a, percentile), share_of_largest * max a), in the first
/// layer_share of the layers; a_lj = max |f_j| over the tokens routed to j.
///
/// arXiv 2510.13999's code; deviation: magnitudes instead of signed values. The quantile interpolates linearly between
/// order statistics. largest: [layers][experts]; the result has its shape. Throws `error` on options outside [0, 1].
[[nodiscard]] inline std::vector<std::vector<bool>> super_experts(std::vector<std::vector<double>> const& largest,
                                                                  super_expert_options const& options = {}) {
  auto const share = [](double x) { return x >= 0 && x <= 1; };
  expects(share(options.percentile) && share(options.share_of_largest) && share(options.layer_share), "super_experts",
          "options: expected values in 0 .. 1");
  std::vector<double> all;
  for (auto const& layer : largest) all.insert(all.end(), layer.begin(), layer.end());
  std::vector<std::vector<bool>> guarded;
  for (auto const& layer : largest) guarded.emplace_back(layer.size(), false);
  if (all.empty()) return guarded;
  std::sort(all.begin(), all.end());
  double const position = options.percentile * static_cast<double>(all.size() - 1);
  auto const below = static_cast<std::size_t>(position);
  std::size_t const above = std::min(below + 1, all.size() - 1);
  double const quantile = all[below] + (position - static_cast<double>(below)) * (all[above] - all[below]);
  double const threshold = std::max(quantile, options.share_of_largest * all.back());
  auto const layers = static_cast<std::size_t>(std::ceil(options.layer_share * static_cast<double>(largest.size())));
  for (std::size_t l = 0; l < std::min(layers, largest.size()); ++l)
    for (std::size_t j = 0; j < largest[l].size(); ++j) guarded[l][j] = largest[l][j] > threshold;
  return guarded;
}

}  // namespace v0
}  // namespace slimtrim
