// How many experts each layer keeps, and which: scores in, kept sets out.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The scores of the experts that a layer still has. All indices are those of the original model.
struct expert_scores {
  index_t layer = 0;
  std::vector<double> scores;        ///< low = remove first
  std::vector<index_t> experts;      ///< ascending, same length as scores; empty means 0, 1, 2, ...
  std::vector<index_t> keep_always;  ///< experts that must not be removed (super_experts, the user's choice)

  [[nodiscard]] index_t expert(std::size_t position) const {
    return experts.empty() ? static_cast<index_t>(position) : experts[position];
  }
};

/// What a layer keeps, ascending indices of the original model.
struct kept_experts {
  index_t layer = 0;
  std::vector<index_t> kept;
};

struct expert_budget {
  index_t keep = 0;     ///< experts a layer; with `global`, the mean over layers
  bool global = false;  ///< pool the layers: counts may differ
  index_t floor = 1;    ///< fewest experts that any layer may keep: the router's top_k
  index_t groups = 1;   ///< router groups (n_group): every group of a layer keeps the same number
  index_t experts = 0;  ///< experts a layer of the original model; needed when groups > 1
};

namespace detail {

// Removing one expert from every group at once is the unit step that keeps groups even; with one group it is one
// expert.
struct removal_step {
  double score = 0;
  std::size_t layer = 0;                 // position in the input
  std::vector<std::size_t> positions{};  // in the layer's scores
};

[[nodiscard]] inline std::vector<removal_step> removal_steps(expert_scores const& layer, std::size_t at,
                                                             expert_budget const& budget) {
  index_t const group_size = budget.groups > 1 ? budget.experts / budget.groups : 0;
  std::vector<std::vector<std::size_t>> candidates(static_cast<std::size_t>(budget.groups));
  for (std::size_t i = 0; i < layer.scores.size(); ++i) {
    index_t const expert = layer.expert(i);
    if (std::isnan(layer.scores[i]))
      throw error("budget: layer " + std::to_string(layer.layer) + ", expert " + std::to_string(expert) +
                  ": expected a score, found NaN");
    if (std::find(layer.keep_always.begin(), layer.keep_always.end(), expert) != layer.keep_always.end()) continue;
    index_t const group = budget.groups > 1 ? expert / group_size : 0;
    expects(group < budget.groups, "budget", "experts: expected an index inside the original model");
    candidates[static_cast<std::size_t>(group)].push_back(i);
  }
  std::size_t steps = layer.scores.size();
  for (auto& group : candidates) {
    std::stable_sort(group.begin(), group.end(),
                     [&](std::size_t a, std::size_t b) { return layer.scores[a] < layer.scores[b]; });
    steps = std::min(steps, group.size());
  }
  std::vector<removal_step> result(steps);
  for (std::size_t s = 0; s < steps; ++s) {
    result[s].layer = at;
    for (auto const& group : candidates) {
      result[s].score += layer.scores[group[s]];
      result[s].positions.push_back(group[s]);
    }
  }
  return result;
}

inline void check_budget(std::vector<expert_scores> const& layers, expert_budget const& budget) {
  auto const refuse = [](std::string const& message) { throw error("budget: " + message); };
  if (budget.floor < 1) refuse("floor: expected at least 1");
  if (budget.keep < budget.floor)
    refuse("keep: expected at least " + std::to_string(budget.floor) +
           " experts a layer (the router takes that many), found " + std::to_string(budget.keep));
  if (budget.groups < 1) refuse("groups: expected at least 1");
  if (budget.groups > 1) {
    if (budget.experts < 1 || budget.experts % budget.groups != 0)
      refuse("experts: expected a multiple of groups, found " + std::to_string(budget.experts));
    if (budget.keep % budget.groups != 0)
      refuse("keep: expected a multiple of groups (" + std::to_string(budget.groups) + "), found " +
             std::to_string(budget.keep));
  }
  for (auto const& layer : layers) {
    auto const place = "layer " + std::to_string(layer.layer) + ": ";
    auto const have = static_cast<index_t>(layer.scores.size());
    if (!layer.experts.empty() && layer.experts.size() != layer.scores.size())
      refuse(place + "experts: expected one index a score");
    if (have < budget.floor)
      refuse(place + "expected at least " + std::to_string(budget.floor) + " experts, found " + std::to_string(have));
    if (!budget.global && have < budget.keep)
      refuse(place + "keep: expected at most " + std::to_string(have) + ", found " + std::to_string(budget.keep));
  }
}

}  // namespace detail

/// The experts to keep, layer by layer in the order of the input.
///
/// Layer-wise (arXiv 2406.02500 eq. 10): the `keep` highest of each layer. Global (eq. 11): the keep * layers highest
/// of all, but no layer below `floor`; scores must then be comparable between layers. With groups, one expert of each
/// group goes at a time (the lowest of each; the step's score is their sum). Ties: the lower layer, then the lower
/// index is removed first. Cost O(n log n). Deterministic. Throws `error` that names the field when the budget cannot
/// be met.
[[nodiscard]] inline std::vector<kept_experts> choose_experts(std::vector<expert_scores> const& layers,
                                                              expert_budget const& budget) {
  detail::check_budget(layers, budget);
  std::vector<detail::removal_step> steps;
  std::vector<std::vector<bool>> removed;
  index_t total = 0;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    auto own = detail::removal_steps(layers[l], l, budget);
    steps.insert(steps.end(), own.begin(), own.end());
    removed.emplace_back(layers[l].scores.size(), false);
    total += static_cast<index_t>(layers[l].scores.size());
  }
  if (budget.global)
    std::stable_sort(steps.begin(), steps.end(),
                     [](detail::removal_step const& a, detail::removal_step const& b) { return a.score < b.score; });
  std::vector<index_t> left;
  for (auto const& layer : layers) left.push_back(static_cast<index_t>(layer.scores.size()));
  index_t const wanted = budget.keep * static_cast<index_t>(layers.size());
  index_t const least = budget.global ? budget.floor : budget.keep;
  for (auto const& step : steps) {
    if (total <= wanted) break;
    index_t& count = left[step.layer];
    if (count - budget.groups < least) continue;
    for (std::size_t const position : step.positions) removed[step.layer][position] = true;
    count -= budget.groups;
    total -= budget.groups;
  }
  if (total > wanted)
    throw error("budget: keep: expected at least " + std::to_string(total) +
                " experts in all (floor, groups and experts that must stay), found " + std::to_string(wanted));
  std::vector<kept_experts> result;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    kept_experts kept{layers[l].layer, {}};
    for (std::size_t i = 0; i < removed[l].size(); ++i)
      if (!removed[l][i]) kept.kept.push_back(layers[l].expert(i));
    result.push_back(kept);
  }
  return result;
}

}  // namespace v0
}  // namespace slimtrim
