// Layer Drop, Block Drop and attention drop: which layers go.
#pragma once

#include <slimtrim/pipeline/decide/context.hpp>
#include <slimtrim/trim/block_drop.hpp>
#include <slimtrim/trim/layer_drop.hpp>

#include <span>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

/// Whether layer i still has the part.
[[nodiscard]] inline bool has_part(plan const& p, model_config const& config, layer_part part, index_t i) {
  layer_plan const& layer = p.layer(i);
  if (!layer.block) return false;
  if (part == layer_part::moe) return layer.feed_forward && config.layer(i).feed_forward == feed_forward_kind::moe;
  if (part == layer_part::attention) return layer.attention;
  return true;
}

[[nodiscard]] inline plan without_parts(plan p, layer_part part, std::span<index_t const> dropped) {
  for (index_t const i : dropped) {
    layer_plan& layer = p.layer(i);
    if (part == layer_part::block) layer.block = false;
    if (part == layer_part::attention) layer.attention = false;
    if (part == layer_part::moe) layer.feed_forward = false;
  }
  return p;
}

}  // namespace detail

/// Decides a step of a layer method. arXiv 2406.02500 sec. 4.2 and 4.3; the ways to choose are those of `select_layers.hpp`.
/// Throws `usage_error` when the criterion's need is not met, `error` when more would go than may.
template <host_backend B>
void decide_layers(decide_context<B>& at, step const& s) {
  using detail::has_part;
  model_config const& config = at.config();
  layer_part const part = s.method == method::layer_drop
                              ? layer_part::moe
                              : (s.method == method::attention_drop ? layer_part::attention : layer_part::block);
  layer_criterion const criterion = find_layer_criterion(s.criterion);
  layer_budget const budget{s.count, config.layer_count(), s.protect_first, s.protect_last};
  auto const open = [&](plan const& p) {
    std::vector<index_t> result;
    for (index_t i = 0; i < config.layer_count(); ++i)
      if (has_part(p, config, part, i) && (s.layers.empty() || std::find(s.layers.begin(), s.layers.end(), i) != s.layers.end()))
        result.push_back(i);
    return result;
  };
  auto const candidates = [&](layer_criterion by, measurement const& m, plan const& p) {
    std::vector<layer_candidate> result;
    for (index_t const i : open(p)) result.push_back({i, layer_similarity(m.layer(i).similarity, part, by)});
    return result;
  };
  layer_selection chosen;
  std::vector<layer_candidate> scores;
  std::vector<index_t> const named = s.layers.empty() ? std::vector<index_t>{} : open(at.plan_so_far);
  bool const all_named = !named.empty() && static_cast<index_t>(named.size()) == s.count && s.protect_first == 0 && s.protect_last == 0;
  if (names_all_layers(s) && !all_named)
    throw usage_error(short_form(s) + ": layers: expected layers that still have what goes, " + std::to_string(s.count) + " of them, found " +
                      std::to_string(named.size()));
  if (all_named) {
    // As many go as are named: there is nothing to choose.
    chosen.dropped = named;
  } else {
    switch (criterion) {
      case layer_criterion::random:
        scores = random_candidates(open(at.plan_so_far), at.options.seed);
        chosen = select_most_similar(scores, budget);
        break;
      case layer_criterion::consecutive:
        chosen = block_drop_consecutive(*at.measured(s).statistics.blocks, budget);
        break;
      case layer_criterion::greedy:
        at.require_data(s);
        chosen = select_greedily(
            [&](std::span<index_t const> dropped) {
              plan const now = detail::without_parts(at.plan_so_far, part, dropped);
              return candidates(layer_criterion::cosine, at.measure(now, {false, false, false}), now);
            },
            budget);
        break;
      case layer_criterion::greedy_kl: {
        at.require_data(s);
        scores = candidates(layer_criterion::cosine, at.measured(s), at.plan_so_far);
        layer_selection const one_shot = select_most_similar(scores, budget);
        chosen = select_least_damage(
            scores, budget,
            [&](std::span<index_t const> dropped) { return at.damage(detail::without_parts(at.plan_so_far, part, dropped)); },
            {one_shot.dropped});
        break;
      }
      case layer_criterion::exhaustive_kl:
        at.require_data(s);
        scores = candidates(layer_criterion::cosine, at.measured(s), at.plan_so_far);
        chosen = select_exhaustively(scores, budget, [&](std::span<index_t const> dropped) {
          return at.damage(detail::without_parts(at.plan_so_far, part, dropped));
        });
        break;
      default:
        scores = candidates(criterion, at.measured(s), at.plan_so_far);
        chosen = select_most_similar(scores, budget);
    }
  }
  at.plan_so_far = detail::without_parts(std::move(at.plan_so_far), part, chosen.dropped);
  ordered_json evidence{{"step", short_form(s)}, {"criterion", s.criterion}, {"dropped", chosen.dropped}};
  ordered_json table = ordered_json::array();
  for (layer_candidate const& c : scores) table.push_back({{"layer", c.layer}, {"score", c.similarity}});
  evidence["scores"] = std::move(table);
  ordered_json order = ordered_json::array();
  for (layer_candidate const& c : chosen.steps) order.push_back({{"layer", c.layer}, {"score", c.similarity}});
  evidence["order"] = std::move(order);
  bool const by_damage = criterion == layer_criterion::greedy_kl || criterion == layer_criterion::exhaustive_kl;
  if (by_damage && !all_named) evidence["kl"] = chosen.damage;
  at.plan_so_far.evidence.push_back(std::move(evidence));
}

}  // namespace v0
}  // namespace slimtrim
