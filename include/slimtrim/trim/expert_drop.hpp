// Expert Drop: T -> T' inside each layer. The decision names experts by their indices in the original model.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/trim/budget.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What stays in each layer that has experts.
struct expert_drop_decision {
  std::vector<kept_experts> layers;

  /// Whether every layer keeps the same number, which stock loaders need.
  [[nodiscard]] bool uniform() const {
    return std::all_of(layers.begin(), layers.end(),
                       [&](kept_experts const& layer) { return layer.kept.size() == layers.front().kept.size(); });
  }
};

/// Drops the experts of lowest score. arXiv 2406.02500 sec. 4.1; unlike the official code no layer falls below
/// `budget.floor`. Errors as `choose_experts`.
[[nodiscard]] inline expert_drop_decision expert_drop(std::vector<expert_scores> const& layers,
                                                      expert_budget const& budget) {
  return {choose_experts(layers, budget)};
}

/// Checks a decision from elsewhere (a plan edited by hand, `hope_select`, `reconstruct`) against a model of `experts`
/// experts a layer whose router takes `top_k` in `groups` groups. Throws `error` that names layer and field.
inline void check_expert_drop(expert_drop_decision const& decision, index_t experts, index_t top_k,
                              index_t groups = 1) {
  for (kept_experts const& layer : decision.layers) {
    auto const refuse = [&](std::string const& message) {
      throw error("expert_drop: layer " + std::to_string(layer.layer) + ": " + message);
    };
    for (std::size_t i = 0; i < layer.kept.size(); ++i) {
      if (layer.kept[i] < 0 || layer.kept[i] >= experts)
        refuse("kept: expected experts below " + std::to_string(experts) + ", found " + std::to_string(layer.kept[i]));
      if (i > 0 && layer.kept[i] <= layer.kept[i - 1]) refuse("kept: expected ascending, distinct experts");
    }
    auto const count = static_cast<index_t>(layer.kept.size());
    if (count < std::min(top_k, experts))
      refuse("kept: expected at least " + std::to_string(std::min(top_k, experts)) + " experts (top_k), found " +
             std::to_string(count));
    if (groups > 1) {
      std::vector<index_t> members(static_cast<std::size_t>(groups), 0);
      for (index_t const expert : layer.kept) ++members[static_cast<std::size_t>(expert / (experts / groups))];
      for (index_t const found : members)
        if (found * groups != count)
          refuse("kept: expected equally many experts of each of the " + std::to_string(groups) + " groups");
    }
  }
}

}  // namespace v0
}  // namespace slimtrim
