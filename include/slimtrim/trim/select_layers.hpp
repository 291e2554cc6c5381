// Which of the candidate layers go: by a score once, by a score measured again after each drop, by measured damage, or
// as one run. Layer Drop, Block Drop and attention drop share it.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// A layer (index in the original model) that may be dropped, and how similar its output is to its input: high = drop.
struct layer_candidate {
  index_t layer = 0;
  double similarity = 0;
};

struct layer_budget {
  index_t count = 0;          ///< layers to drop
  index_t layers = 0;         ///< layers of the original model; needed for protect_last
  index_t protect_first = 0;  ///< the first so many layers of the original model stay
  index_t protect_last = 0;   ///< the last so many stay
};

/// The result: indices of the original model, ascending, with the score of the method that chose them.
struct layer_selection {
  std::vector<index_t> dropped;
  /// In the order of dropping, where there is one: the layer and the similarity or damage that decided.
  std::vector<layer_candidate> steps;
  double damage = 0;        ///< of the result, for the methods that measure it
  index_t evaluations = 0;  ///< calls of a callback
};

/// The candidates of the model without `dropped` (ascending), measured again.
using similarities_after = std::function<std::vector<layer_candidate>(std::span<index_t const> dropped)>;
/// How much worse the model without `dropped` (ascending) is, for example its mean KL from the original.
using damage_of = std::function<double(std::span<index_t const> dropped)>;

namespace detail {

[[nodiscard]] inline std::vector<layer_candidate> eligible_layers(std::vector<layer_candidate> candidates,
                                                                  layer_budget const& budget) {
  std::sort(candidates.begin(), candidates.end(),
            [](layer_candidate const& a, layer_candidate const& b) { return a.layer < b.layer; });
  std::vector<layer_candidate> result;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    layer_candidate const& c = candidates[i];
    if (std::isnan(c.similarity))
      throw error("select_layers: layer " + std::to_string(c.layer) + ": expected a similarity, found NaN");
    expects(i == 0 || candidates[i - 1].layer != c.layer, "select_layers", "candidates: expected distinct layers");
    if (c.layer >= budget.protect_first && (budget.protect_last == 0 || c.layer < budget.layers - budget.protect_last))
      result.push_back(c);
  }
  return result;
}

inline void check_layer_budget(std::size_t all, std::size_t eligible, layer_budget const& budget) {
  auto const found = ", found " + std::to_string(budget.count);
  if (budget.count < 0) throw error("select_layers: count: expected at least 0" + found);
  if (budget.protect_first < 0 || budget.protect_last < 0)
    throw error("select_layers: protect_first, protect_last: expected at least 0");
  if (budget.protect_last > 0 && budget.layers <= 0)
    throw error("select_layers: layers: expected the number of layers of the model, found " +
                std::to_string(budget.layers));
  if (budget.count > static_cast<index_t>(eligible))
    throw error("select_layers: count: expected at most " + std::to_string(eligible) + " unprotected layers" + found);
  if (budget.count > 0 && budget.count >= static_cast<index_t>(all))
    throw error("select_layers: count: expected less than all " + std::to_string(all) + " layers" + found);
}

// The eligible candidate of highest similarity; ties to the lower layer.
[[nodiscard]] inline layer_candidate most_similar(std::vector<layer_candidate> const& candidates) {
  layer_candidate best = candidates.front();
  for (layer_candidate const& c : candidates)
    if (c.similarity > best.similarity) best = c;
  return best;
}

[[nodiscard]] inline double checked_damage(damage_of const& damage, std::span<index_t const> dropped) {
  double const value = damage(dropped);
  if (std::isnan(value)) throw numeric_error("select_layers: the measured damage is not a number");
  return value;
}

[[nodiscard]] inline std::vector<index_t> with_layer(std::vector<index_t> dropped, index_t layer) {
  dropped.insert(std::lower_bound(dropped.begin(), dropped.end(), layer), layer);
  return dropped;
}

}  // namespace detail

/// The `count` candidates of highest similarity, one shot: arXiv 2406.02500 sec. 4.2. Ties to the lower layer. Throws
/// `error` that names the field when fewer may go, or nothing would be left.
[[nodiscard]] inline layer_selection select_most_similar(std::vector<layer_candidate> const& candidates,
                                                         layer_budget const& budget) {
  auto order = detail::eligible_layers(candidates, budget);
  detail::check_layer_budget(candidates.size(), order.size(), budget);
  std::stable_sort(order.begin(), order.end(),
                   [](layer_candidate const& a, layer_candidate const& b) { return a.similarity > b.similarity; });
  layer_selection result;
  result.steps.assign(order.begin(), order.begin() + budget.count);
  for (auto const& step : result.steps) result.dropped = detail::with_layer(std::move(result.dropped), step.layer);
  return result;
}

/// Drops the most similar layer, measures the model as left, and again. `measure` is called once a drop, first with
/// nothing dropped; it returns the candidates that remain.
[[nodiscard]] inline layer_selection select_greedily(similarities_after const& measure, layer_budget const& budget) {
  layer_selection result;
  std::size_t all = 0;
  for (index_t step = 0; step < budget.count || step == 0; ++step) {
    auto const measured = measure(result.dropped);
    ++result.evaluations;
    auto const eligible = detail::eligible_layers(measured, budget);
    if (step == 0) {
      all = measured.size();
      detail::check_layer_budget(all, eligible.size(), budget);
      if (budget.count == 0) break;
    }
    expects(!eligible.empty(), "select_greedily", "measure: expected the remaining candidates");
    auto const best = detail::most_similar(eligible);
    result.steps.push_back(best);
    result.dropped = detail::with_layer(std::move(result.dropped), best.layer);
  }
  return result;
}

/// Drops the layer whose loss damages least, measures every remaining one again, and so on; ties to the lower layer.
/// The `alternatives` (for example the one-shot selection) of the same count are measured too and taken when they
/// damage less, so the result is never worse than any of them on what `damage` measures. Cost count * candidates
/// evaluations.
[[nodiscard]] inline layer_selection select_least_damage(std::vector<layer_candidate> const& candidates,
                                                         layer_budget const& budget, damage_of const& damage,
                                                         std::vector<std::vector<index_t>> const& alternatives = {}) {
  auto open = detail::eligible_layers(candidates, budget);
  detail::check_layer_budget(candidates.size(), open.size(), budget);
  layer_selection result;
  for (index_t step = 0; step < budget.count; ++step) {
    std::size_t best = open.size();
    double least = 0;
    for (std::size_t i = 0; i < open.size(); ++i) {
      double const value = detail::checked_damage(damage, detail::with_layer(result.dropped, open[i].layer));
      ++result.evaluations;
      if (best == open.size() || value < least) {
        best = i;
        least = value;
      }
    }
    result.steps.push_back({open[best].layer, least});
    result.dropped = detail::with_layer(std::move(result.dropped), open[best].layer);
    result.damage = least;
    open.erase(open.begin() + static_cast<std::ptrdiff_t>(best));
  }
  for (auto alternative : alternatives) {
    std::sort(alternative.begin(), alternative.end());
    if (budget.count == 0 || alternative == result.dropped) continue;
    expects_equal(static_cast<long long>(alternative.size()), budget.count, "select_least_damage",
                  "layers of an alternative");
    double const value = detail::checked_damage(damage, alternative);
    ++result.evaluations;
    if (value < result.damage) {
      result.dropped = alternative;
      result.damage = value;
      result.steps.clear();
    }
  }
  return result;
}

/// The set of least damage among all sets of `count` candidates; ties to the lexicographically first. Cost C(n, count)
/// evaluations: meant for one or two layers, to see how far the cheaper searches are from the optimum. Throws `error` that
/// names the count where it asks for more than `most_evaluations`.
[[nodiscard]] inline layer_selection select_exhaustively(std::vector<layer_candidate> const& candidates,
                                                         layer_budget const& budget, damage_of const& damage,
                                                         index_t most_evaluations = 2000) {
  auto const open = detail::eligible_layers(candidates, budget);
  detail::check_layer_budget(candidates.size(), open.size(), budget);
  double sets = 1;
  for (index_t i = 0; i < budget.count; ++i)
    sets = sets * static_cast<double>(static_cast<index_t>(open.size()) - i) / static_cast<double>(i + 1);
  if (sets > static_cast<double>(most_evaluations))
    throw error("select_layers: count: expected at most " + std::to_string(most_evaluations) + " sets of layers to measure, found " +
                std::to_string(budget.count) + " of " + std::to_string(open.size()) + " layers");
  layer_selection result;
  auto const count = static_cast<std::size_t>(budget.count);
  std::vector<std::size_t> chosen(count);
  for (std::size_t i = 0; i < count; ++i) chosen[i] = i;
  for (;;) {
    std::vector<index_t> dropped;
    for (std::size_t const i : chosen) dropped.push_back(open[i].layer);
    double const value = detail::checked_damage(damage, dropped);
    if (result.evaluations == 0 || value < result.damage) {
      result.dropped = dropped;
      result.damage = value;
    }
    ++result.evaluations;
    std::size_t i = count;
    while (i > 0 && chosen[i - 1] == open.size() - count + i - 1) --i;
    if (i == 0) return result;
    ++chosen[i - 1];
    for (std::size_t j = i; j < count; ++j) chosen[j] = chosen[j - 1] + 1;
  }
}

}  // namespace v0
}  // namespace slimtrim
