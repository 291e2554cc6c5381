// The planner: which combination of block, layer, expert and width drops and bits damages a model least at a given size.
//
//   1. orders in which layers go, and the damage of each amount of each kind, by itself (KL on held-out windows)
//   2. the damage of plain rounding, class by class and layer by layer
//   3. what recovery and second-order quantisation leave of them, measured on a few whole recipes
//   4. sums of these predict every combination; the promising ones are carried out in memory and measured
//   5. the best measured one is varied until no variation is better
#pragma once

#include <slimtrim/pipeline/search/measure_parts.hpp>
#include <slimtrim/pipeline/search/search_options.hpp>
#include <slimtrim/pipeline/search/search_state.hpp>
#include <slimtrim/pipeline/search/try_recipes.hpp>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

/// Throws `usage_error` that names the smallest size in the space when the target is below it.
template <host_backend B>
void refuse_impossible_target(search_state<B>& at) {
  int const least = at.model.format != nullptr || at.options.bits.empty() ? dense_bits : *std::min_element(at.options.bits.begin(), at.options.bits.end());
  structure_choice smallest;
  if (!at.damages.blocks.empty()) smallest.blocks = at.damages.blocks.rbegin()->first;
  if (!at.damages.layers.empty()) {
    for (structure_choice s = smallest; s.layers <= at.damages.layers.rbegin()->first; ++s.layers)
      if (at.possible(s)) smallest = s;
  }
  if (!at.damages.experts.empty()) smallest.experts = at.damages.experts.begin()->first;
  if (!at.damages.widths.empty()) smallest.width = at.damages.widths.begin()->first;
  search_candidate c{smallest, at.all_at(least)};
  for (std::size_t k = 4; k < searched_classes.size(); ++k)
    if (at.choices[k].size() > 1) c.bits[k].assign(c.bits[k].size(), at.choices[k].back());
  std::uint64_t const reachable = at.goal_bytes(price(at.model, at.whole_plan(c)));
  if (at.options.target < reachable)
    throw usage_error("target: expected at least " + std::to_string(reachable) + " bytes (the smallest size that this search can reach), found " +
                      std::to_string(at.options.target));
}

// The tables that predictions were made of.
template <host_backend B>
[[nodiscard]] ordered_json search_explanation(search_state<B> const& at, search_candidate const& c) {
  ordered_json why = ordered_json::object();
  auto const amounts_json = [](std::map<index_t, double> const& table, double factor) {
    ordered_json list = ordered_json::array();
    for (auto const& [amount, kl] : table) list.push_back({{"amount", amount}, {"kl", kl}});
    return ordered_json{{"alone", list}, {"left_by_recovery", factor}};
  };
  why["structure"] = {{"blocks_dropped", c.structure.blocks}, {"layers_dropped", c.structure.layers},
                      {"experts_kept", c.structure.experts}, {"width_kept", c.structure.width}};
  why["block_drop"] = amounts_json(at.damages.blocks, at.damages.block_factor);
  why["layer_drop"] = amounts_json(at.damages.layers, at.damages.layer_factor);
  why["expert_drop"] = amounts_json(at.damages.experts, at.damages.expert_factor);
  why["neuron_drop"] = amounts_json(at.damages.widths, at.damages.width_factor);
  ordered_json rounding = ordered_json::array();
  for (auto const& [key, kl] : at.damages.rounding)
    rounding.push_back({{"class", searched_classes[std::get<0>(key)]}, {"layer", std::get<1>(key)}, {"bits", std::get<2>(key)}, {"kl", kl}});
  why["rounding"] = std::move(rounding);
  ordered_json left_of = ordered_json::object();
  for (auto const& [bits, factor] : at.damages.bits_factor) left_of[std::to_string(bits)] = factor;
  why["left_by_gptq"] = std::move(left_of);
  return why;
}

}  // namespace detail

/// Searches for the recipe of least KL(model || recipe) whose output has at most `options.target` bytes.
///
/// The last windows (a quarter at most) measure; the others decide, calibrate and recover. statistics: of the input, or null to make
/// them from the windows. The same inputs and options give the same result on every machine unless `seconds` cuts the search
/// (`cut_short` tells). Memory: a whole slimmed model besides what a compression needs. Throws `usage_error` that names the
/// smallest reachable size when the target is below it.
template <host_backend B>
[[nodiscard]] search_result search(B const& backend, opened_model const& model, model_statistics const* statistics,
                                   token_windows const& windows, search_options const& options) {
  expects(windows.count() >= 2, "search", "windows: expected at least 2, one to decide and one to measure");
  search_state<B> at(backend, model, statistics, windows, options);
  part_measures<B> parts(at);
  parts.structure();
  detail::refuse_impossible_target(at);
  parts.bits();
  recipe_trials<B> trials(at);
  trials.factors();
  trials.shortlist();
  trials.vary();
  auto const& measured = trials.measured();
  std::size_t const best = trials.best();
  if (best == measured.size())
    throw usage_error("target: no recipe that fits was measured within --search-seconds: expected more seconds or a larger target");
  search_result& result = at.result;
  result.plan = at.whole_plan(measured[best].first);
  result.plan.fingerprint = fingerprint_of(*model.files);
  result.best = measured[best].second;
  std::vector<searched_recipe> seen;
  for (auto const& each : measured) seen.push_back(each.second);
  std::stable_sort(seen.begin(), seen.end(), [&](searched_recipe const& a, searched_recipe const& b) {
    return at.goal_bytes(a) != at.goal_bytes(b) ? at.goal_bytes(a) < at.goal_bytes(b) : a.kl < b.kl;
  });
  for (searched_recipe& each : seen)
    if (result.front.empty() || each.kl < result.front.back().kl) result.front.push_back(std::move(each));
  result.recipes = static_cast<index_t>(measured.size());
  result.why = detail::search_explanation(at, measured[best].first);
  result.plan.evidence.push_back({{"step", "search"}, {"kl", result.best.kl}, {"bytes", result.best.bytes}, {"why", result.why}});
  check_plan(result.plan, model.config, "search");
  at.tell("try recipes", result.recipes, result.recipes, "recipes");
  return std::move(result);
}

}  // namespace v0
}  // namespace slimtrim
