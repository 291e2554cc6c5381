// Novice: an expert is replaced by the mean of its outputs; its router row and weight stay.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/statistics/expert_outputs.hpp>
#include <slimtrim/trim/budget.hpp>

#include <algorithm>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// One replaced expert: E(x) = constant for every x.
struct novice {
  index_t expert = 0;           ///< index in the original model
  std::vector<float> constant;  ///< [hidden]
  friend bool operator==(novice const&, novice const&) = default;
};

/// The experts of a layer that stay, and what stands for the others.
struct novice_decision {
  kept_experts experts;
  std::vector<novice> novices;  ///< ascending experts
};

/// Replaces the experts of one layer that `kept` does not name by their mean outputs.
///
/// arXiv 2507.00390. candidates: the experts that the layer still has, original indices, ascending. outputs: statistics
/// of the original model's experts. An expert that no token reached becomes the constant 0. Throws `error` when `kept`
/// is not among the candidates, or an expert is outside the statistics.
[[nodiscard]] inline novice_decision replace_by_novices(kept_experts const& kept,
                                                        std::vector<index_t> const& candidates,
                                                        expert_outputs const& outputs) {
  novice_decision result{kept, {}};
  expects(std::includes(candidates.begin(), candidates.end(), kept.kept.begin(), kept.kept.end()), "replace_by_novices",
          "kept: expected experts of the layer, ascending");
  for (index_t const expert : candidates) {
    expects(expert >= 0 && expert < outputs.experts(), "replace_by_novices",
            "candidates: expected experts that the statistics know");
    if (std::binary_search(kept.kept.begin(), kept.kept.end(), expert)) continue;
    novice replaced{expert, {}};
    for (double const value : outputs.mean(expert)) replaced.constant.push_back(static_cast<float>(value));
    result.novices.push_back(replaced);
  }
  return result;
}

}  // namespace v0
}  // namespace slimtrim
