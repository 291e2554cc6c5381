// Names of expert criteria, for recipes: what each needs and how it is computed.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/importance/criterion.hpp>
#include <slimtrim/importance/ean.hpp>
#include <slimtrim/importance/easy_ep.hpp>
#include <slimtrim/importance/frequency.hpp>
#include <slimtrim/importance/hope.hpp>
#include <slimtrim/importance/man.hpp>
#include <slimtrim/importance/mone.hpp>
#include <slimtrim/importance/msan.hpp>
#include <slimtrim/importance/random.hpp>
#include <slimtrim/importance/reap.hpp>
#include <slimtrim/importance/reap_residual.hpp>
#include <slimtrim/importance/router_probability.hpp>
#include <slimtrim/importance/topk_weight.hpp>
#include <slimtrim/importance/weighted_frequency.hpp>

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// One named criterion.
struct criterion_entry {
  std::string_view name;
  need needs = need::statistics;
  /// Whether scores of different layers have one scale, so that pooling layers needs no further normalisation.
  bool comparable = false;
  /// Scores from a layer's statistics; null for criteria that need something else (aimer, random, reconstruction).
  std::vector<double> (*score)(layer_statistics const&) = nullptr;
};

namespace detail {

template <statistics_criterion C>
[[nodiscard]] std::vector<double> score_with(layer_statistics const& layer) {
  return C{}(layer);
}
template <gate_weight Gates>
[[nodiscard]] std::vector<double> score_reap(layer_statistics const& layer) {
  return reap_importance{Gates}(layer);
}

inline constexpr criterion_entry criteria[] = {
    {"reap", need::statistics, false, score_reap<gate_weight::model>},
    {"reap_renormalised", need::statistics, false, score_reap<gate_weight::renormalised>},
    {"reap_raw", need::statistics, false, score_reap<gate_weight::raw>},
    {"reap_residual", need::statistics, true, score_with<reap_residual_importance>},
    {"router_probability", need::statistics, true, score_with<router_probability_importance>},
    {"topk_weight", need::statistics, true, score_with<topk_weight_importance>},
    {"frequency", need::statistics, true, score_with<frequency_importance>},
    {"weighted_frequency", need::statistics, true, score_with<weighted_frequency_importance>},
    {"ean", need::statistics, false, score_with<ean_importance>},
    {"man", need::statistics, false, score_with<man_importance>},
    {"msan", need::statistics, false, score_with<msan_importance>},
    {"easy_ep", need::statistics, false, score_with<easy_ep_importance>},
    {"hope", need::statistics, false, score_with<hope_importance>},
    {"mone", need::statistics, false, score_with<mone_importance>},
    {"aimer", need::weights, true, nullptr},
    {"random", need::weights, true, nullptr},
    {"reconstruction", need::tokens, false, nullptr},
    {"reconstruction_kl", need::tokens, true, nullptr},
};

}  // namespace detail

/// All criteria, in the order in which they are documented.
[[nodiscard]] constexpr std::span<criterion_entry const> expert_criteria() { return detail::criteria; }

/// A criterion as a recipe names it: `name`, or `global_name` to pool the layers.
struct criterion_choice {
  criterion_entry const* entry = nullptr;
  bool global = false;
};

/// Throws `usage_error` that lists the known names when there is no such criterion.
[[nodiscard]] inline criterion_choice find_criterion(std::string_view name) {
  constexpr std::string_view prefix = "global_";
  criterion_choice choice;
  choice.global = name.substr(0, prefix.size()) == prefix;
  std::string_view const plain = choice.global ? name.substr(prefix.size()) : name;
  for (criterion_entry const& entry : detail::criteria)
    if (entry.name == plain) choice.entry = &entry;
  if (choice.entry == nullptr) {
    std::string known;
    for (criterion_entry const& entry : detail::criteria)
      known += (known.empty() ? "" : ", ") + std::string(entry.name);
    throw usage_error("criterion: expected one of " + known + " (or global_ before it), found '" + std::string(name) +
                      "'");
  }
  return choice;
}

/// Throws `usage_error` that names the criterion and its need unless `given` provides it.
inline void check_need(criterion_entry const& entry, need given) {
  if (static_cast<int>(entry.needs) > static_cast<int>(given))
    throw usage_error("criterion " + std::string(entry.name) + ": expected " + std::string(name_of(entry.needs)) +
                      ", found only " + std::string(name_of(given)));
}

}  // namespace v0
}  // namespace slimtrim
