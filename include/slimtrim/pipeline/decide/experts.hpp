// Which experts stay, for Expert Drop and for novices: scores by any criterion, then budgets.
#pragma once

#include <slimtrim/importance/aimer.hpp>
#include <slimtrim/importance/registry.hpp>
#include <slimtrim/pipeline/decide/context.hpp>
#include <slimtrim/pipeline/decide/reconstruction.hpp>
#include <slimtrim/trim/expert_drop.hpp>

#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

// Scores of `experts` of layer i, in order; low goes first.
template <host_backend B>
[[nodiscard]] std::vector<double> score_experts(decide_context<B>& at, step const& s, criterion_entry const& entry, index_t i,
                                                std::vector<index_t> const& experts) {
  std::vector<double> scores;
  if (entry.name == "random") {
    auto const all = random_importance{at.options.seed}(i, at.config().layer(i).experts);
    for (index_t const e : experts) scores.push_back(all[static_cast<std::size_t>(e)]);
    return scores;
  }
  if (entry.name == "aimer") {
    opened_model const now = planned_model(*at.in.model, at.plan_so_far);
    for (index_t const e : experts) {
      aimer_importance importance;
      for (module_role const role : {module_role::gate, module_role::up, module_role::down}) {
        tensor<float, 2> const dense = expand(now.weights->matrix(*planned_module(at.plan_so_far, {role, i, e})).view);
        importance.add(dense.view());
      }
      scores.push_back(importance.score());
    }
    return scores;
  }
  measurement const& m = at.measured(s);
  std::vector<double> const all = entry.score(m.layer(i));
  for (index_t const e : experts) scores.push_back(all[static_cast<std::size_t>(m.position(i, e))]);
  return scores;
}

// Scores, or where a criterion judges whole sets, the sets; in the order of `layers`.
struct ranked_experts {
  std::vector<expert_scores> layers{};
  std::vector<kept_experts> chosen{};  ///< empty: by the scores
  index_t evaluations = 0;             ///< subsets that were measured
};

// Greedy losses of one layer in nats of the whole model, measured on the calibration windows.
template <host_backend B>
[[nodiscard]] reconstruction_result in_nats(decide_context<B>& at, expert_scores const& layer, reconstruction_result const& greedy) {
  return losses_in_nats(greedy, [&](std::size_t gone) {
    plan without = at.plan_so_far;
    std::vector<index_t> stay = without.layer(layer.layer).experts;
    // A router with groups cannot do with uneven ones: as many go from each, the first of its own in the order.
    index_t const groups = at.config().routing.groups, of_each = ceil_div(static_cast<index_t>(gone), groups);
    index_t const width = std::max<index_t>(at.config().layer(layer.layer).experts / groups, 1);
    std::vector<index_t> left_of(static_cast<std::size_t>(groups), of_each);
    std::vector<index_t> order = greedy.removal_order;
    order.insert(order.end(), greedy.kept.begin(), greedy.kept.end());
    for (index_t const k : order) {
      index_t const expert = layer.experts[static_cast<std::size_t>(k)];
      index_t& left = left_of[static_cast<std::size_t>(expert / width)];
      if (left == 0) continue;
      --left;
      stay.erase(std::find(stay.begin(), stay.end(), expert));
    }
    keep_experts(without.layer(layer.layer), stay);
    return at.damage(without) - at.damage_so_far();
  });
}

// By measured loss: sets layer by layer, scores that can be pooled otherwise.
template <host_backend B>
void rank_by_reconstruction(decide_context<B>& at, step const& s, bool sets, index_t keep, index_t floor, ranked_experts& ranked) {
  at.require_data(s);
  token_windows const windows = windows_for_reconstruction(at.config(), *at.in.data, at.options.reconstruction_bytes);
  opened_model const now = planned_model(*at.in.model, at.plan_so_far);
  collect_reconstruction(
      at.backend, now, windows, at.options.progress, [&](index_t planned, reconstruction_tokens& tokens, double unit) {
        for (expert_scores& layer : ranked.layers) {
          if (planned_layer(at.plan_so_far, layer.layer) != planned) continue;
          std::vector<index_t> const& all = at.plan_so_far.layer(layer.layer).experts;
          // Candidates by their positions among all experts of the layer; the others always stay.
          std::vector<index_t> fixed, open;
          for (std::size_t p = 0; p < all.size(); ++p) {
            bool const candidate = std::binary_search(layer.experts.begin(), layer.experts.end(), all[p]);
            (candidate ? open : fixed).push_back(static_cast<index_t>(p));
          }
          auto const loss = [&](std::span<index_t const> kept) {
            std::vector<index_t> stay = fixed;
            for (index_t const k : kept) stay.push_back(open[static_cast<std::size_t>(k)]);
            std::sort(stay.begin(), stay.end());
            for (index_t const e : layer.keep_always) {
              auto const p = std::lower_bound(all.begin(), all.end(), e) - all.begin();
              if (!std::binary_search(stay.begin(), stay.end(), static_cast<index_t>(p))) return std::numeric_limits<double>::max();
            }
            return tokens.loss(at.backend, stay);
          };
          auto const n = static_cast<index_t>(open.size());
          reconstruction_result const found = sets ? reconstruct(n, keep, loss) : reconstruct_greedily(n, std::min(floor, n), loss);
          ranked.evaluations += found.evaluations;
          if (sets) {
            kept_experts kept{layer.layer, {}};
            for (index_t const k : found.kept) kept.kept.push_back(layer.experts[static_cast<std::size_t>(k)]);
            ranked.chosen.push_back(std::move(kept));
          }
          // What a layer without any residual stream loses cannot be compared; its losses stand as they are.
          bool const nats = !sets && s.criterion == "reconstruction_kl";
          double const scale = unit > 0 && !nats ? unit : 1.0;
          if (found.removal_order.empty()) layer.scores.assign(static_cast<std::size_t>(n), found.loss / scale);
          else layer.scores = reconstruction_scores(nats ? in_nats(at, layer, found) : found, n, scale);
        }
      });
}

// HOPE's own search for each layer's set: its pairs cannot be said in scores.
template <host_backend B>
void choose_by_hope(decide_context<B>& at, step const& s, index_t keep, ranked_experts& ranked) {
  measurement const& m = at.measured(s);
  for (expert_scores const& layer : ranked.layers) {
    std::vector<double> const all = hope_matrix(m.layer(layer.layer));
    std::vector<index_t> const positions = m.positions(layer.layer, layer.experts);
    auto const n = static_cast<index_t>(positions.size()), stride = m.layer(layer.layer).experts();
    std::vector<double> some;
    for (index_t const i : positions)
      for (index_t const j : positions) some.push_back(all[static_cast<std::size_t>(i * stride + j)]);
    hope_selection const gone = hope_select(some, n, std::max<index_t>(n - keep, 0));
    kept_experts kept{layer.layer, {}};
    for (index_t k = 0; k < n; ++k)
      if (!std::binary_search(gone.removed.begin(), gone.removed.end(), k)) kept.kept.push_back(layer.experts[static_cast<std::size_t>(k)]);
    ranked.chosen.push_back(std::move(kept));
  }
}

}  // namespace detail

/// The experts that keep their weights by step `s`, and the step's evidence.
struct expert_choice {
  std::vector<kept_experts> layers{};
  ordered_json evidence{};
};

/// Chooses among each layer's experts that have weights. `floor`: fewest that a layer may keep, novices not counted.
/// Throws `usage_error` when the criterion's need is not met, `error` from the budget.
template <host_backend B>
[[nodiscard]] expert_choice choose_kept_experts(decide_context<B>& at, step const& s, index_t floor) {
  criterion_choice const choice = find_criterion((s.global ? "global_" : "") + s.criterion);
  std::vector<index_t> const layers = at.expert_layers(s);
  detail::ranked_experts ranked;
  for (index_t const i : layers) ranked.layers.push_back({i, {}, at.weighted_experts(i), at.guarded(s, i)});
  expert_budget budget;
  budget.keep = s.count;
  budget.global = choice.global && !at.options.uniform;
  budget.floor = floor;
  budget.groups = at.config().routing.groups;
  budget.experts = s.of;
  bool guarded = false;
  for (expert_scores const& layer : ranked.layers) guarded = guarded || !layer.keep_always.empty();
  // A set is taken as it is found only where nothing else limits it; `choose_experts` refuses impossible budgets first.
  bool const sets = !budget.global && budget.groups == 1;
  for (expert_scores& layer : ranked.layers)
    layer.scores = choice.entry->needs == need::tokens ? std::vector<double>(layer.experts.size(), 0.0)
                                                       : detail::score_experts(at, s, *choice.entry, layer.layer, layer.experts);
  expert_drop_decision decision = expert_drop(ranked.layers, budget);
  if (choice.entry->needs == need::tokens) {
    detail::rank_by_reconstruction(at, s, sets, budget.keep, budget.groups > 1 ? budget.groups : budget.floor, ranked);
    if (!sets) decision = expert_drop(ranked.layers, budget);
  } else if (choice.entry->name == "hope" && sets && !guarded) {
    detail::choose_by_hope(at, s, budget.keep, ranked);
  }
  if (!ranked.chosen.empty()) decision.layers = ranked.chosen;
  expert_choice result{decision.layers, {{"step", short_form(s)}, {"criterion", s.criterion}, {"global", budget.global}}};
  ordered_json table = ordered_json::array();
  for (std::size_t l = 0; l < decision.layers.size(); ++l) {
    ordered_json one{{"layer", decision.layers[l].layer}, {"experts", ranked.layers[l].experts}, {"scores", ranked.layers[l].scores},
                     {"kept", decision.layers[l].kept}};
    if (s.protect_super_experts) one["protected"] = ranked.layers[l].keep_always;
    table.push_back(std::move(one));
  }
  result.evidence["layers"] = std::move(table);
  if (ranked.evaluations > 0) result.evidence["subsets"] = ranked.evaluations;
  if (choice.entry->needs == need::statistics) result.evidence["unreached"] = at.unreached(layers);
  return result;
}

/// Decides Expert Drop. arXiv 2406.02500 sec. 4.1. Errors as `choose_kept_experts`.
template <host_backend B>
void decide_expert_drop(decide_context<B>& at, step const& s) {
  index_t floor = 1;
  for (index_t const i : at.expert_layers(s)) floor = std::max(floor, at.config().layer(i).top_k);
  expert_choice const choice = choose_kept_experts(at, s, floor);
  for (kept_experts const& each : choice.layers) {
    layer_plan& layer = at.plan_so_far.layer(each.layer);
    std::vector<index_t> stay = each.kept;
    // Novices are not candidates: they cost nothing.
    for (index_t const e : layer.experts)
      if (at.is_novice(each.layer, e)) stay.push_back(e);
    std::sort(stay.begin(), stay.end());
    keep_experts(layer, stay);
  }
  at.plan_so_far.evidence.push_back(choice.evidence);
}

}  // namespace v0
}  // namespace slimtrim
