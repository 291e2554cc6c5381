// Expert merging: which experts become one, with what weights, and in which order their neurons meet.
#pragma once

#include <slimtrim/pipeline/decide/context.hpp>
#include <slimtrim/trim/expert_merge.hpp>
#include <slimtrim/trim/merge_groups.hpp>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

// A group of merged experts as a group of the checkpoint's experts: weights multiply, orders follow one another.
[[nodiscard]] inline merge_group flatten(merge_group const& outer, layer_plan const& layer) {
  struct part {
    index_t expert;
    double weight;
    std::vector<index_t> order;
  };
  std::vector<part> parts;
  for (std::size_t m = 0; m < outer.members.size(); ++m) {
    std::vector<index_t> const outer_order = outer.orders.empty() ? std::vector<index_t>{} : outer.orders[m];
    merge_group const* const inner = layer.find_merge(outer.members[m]);
    if (inner == nullptr) {
      parts.push_back({outer.members[m], outer.weights[m], outer_order});
      continue;
    }
    for (std::size_t k = 0; k < inner->members.size(); ++k) {
      std::vector<index_t> order = inner->orders.empty() ? std::vector<index_t>{} : inner->orders[k];
      if (order.empty()) {
        order = outer_order;
      } else if (!outer_order.empty()) {
        std::vector<index_t> const first = order;
        for (std::size_t n = 0; n < order.size(); ++n) order[n] = first[static_cast<std::size_t>(outer_order[n])];
      }
      parts.push_back({inner->members[k], outer.weights[m] * inner->weights[k], std::move(order)});
    }
  }
  std::sort(parts.begin(), parts.end(), [](part const& a, part const& b) { return a.expert < b.expert; });
  merge_group result{outer.kept, {}, {}, {}};
  bool ordered = false;
  for (part& each : parts) {
    result.members.push_back(each.expert);
    result.weights.push_back(each.weight);
    ordered = ordered || !each.order.empty();
    result.orders.push_back(std::move(each.order));
  }
  if (!ordered) result.orders.clear();
  return result;
}

}  // namespace detail

/// Decides expert_merge: groups as `merge_groups` says from statistics, neurons aligned by `align_neurons` for `average` and `ream`
/// (HC-SMoE averages them as they are). The router row of each group's `kept` stays, those of the other members go. Experts merged
/// before are merged again by their own members. Throws `usage_error` when the need is not met or some experts are novices.
template <host_backend B>
void decide_merges(decide_context<B>& at, step const& s) {
  merge_method const by = find_merge_method(s.criterion);
  model_config const& config = at.config();
  plan const before = at.plan_so_far;
  opened_model const now = planned_model(*at.in.model, before);
  ordered_json table = ordered_json::array();
  std::vector<index_t> const layers = at.expert_layers(s);
  for (index_t const i : layers) {
    layer_plan& layer = at.plan_so_far.layer(i);
    std::vector<index_t> const experts = layer.experts;
    if (at.weighted_experts(i).size() != experts.size())
      throw usage_error(short_form(s) + ": layer " + std::to_string(i) + ": expected experts with weights only, found novices");
    for (merge_group const& group : layer.merges)
      if (!layer.sliced_before(group) && layer.neurons.count(group.kept) != 0)
        throw usage_error(short_form(s) + ": expected expert_merge, neuron_drop, expert_merge in another order");
    measurement const& m = at.measured(s);
    std::vector<merge_group> groups = merge_groups(by, m.layer(i), m.positions(i, experts), s.count, config.layer(i).top_k);
    auto const original = [&](index_t position) { return m.when.layer(i).experts[static_cast<std::size_t>(position)]; };
    std::vector<merge_group> merges;
    std::vector<index_t> kept;
    ordered_json lists = ordered_json::array();
    for (merge_group& group : groups) {
      group.kept = original(group.kept);
      for (index_t& member : group.members) member = original(member);
      kept.push_back(group.kept);
      lists.push_back({{"kept", group.kept}, {"members", group.members}, {"weights", group.weights}});
      if (group.members.size() == 1) {
        if (merge_group const* const as_it_was = layer.find_merge(group.kept)) merges.push_back(*as_it_was);
        continue;
      }
      if (by != merge_method::hc_smoe) {
        auto const matrices = [&](index_t expert) {
          std::vector<tensor<float, 2>> result;
          for (module_role const role : {module_role::gate, module_role::up, module_role::down})
            result.push_back(expand(now.weights->matrix(*planned_module(before, {role, i, expert})).view));
          return result;
        };
        auto const centre = matrices(group.kept);
        for (index_t const member : group.members) {
          if (member == group.kept) {
            group.orders.emplace_back();
            continue;
          }
          auto const other = matrices(member);
          group.orders.push_back(align_neurons(at.backend, {centre[0].view(), centre[1].view(), centre[2].view()},
                                               {other[0].view(), other[1].view(), other[2].view()}));
        }
      }
      merges.push_back(detail::flatten(group, layer));
    }
    std::sort(kept.begin(), kept.end());
    layer.experts = kept;
    layer.merges = std::move(merges);
    std::sort(layer.merges.begin(), layer.merges.end(), [](merge_group const& a, merge_group const& b) { return a.kept < b.kept; });
    table.push_back({{"layer", i}, {"experts", experts}, {"kept", kept}, {"groups", std::move(lists)}});
  }
  at.plan_so_far.evidence.push_back({{"step", short_form(s)}, {"criterion", s.criterion}, {"layers", std::move(table)},
                                     {"unreached", at.unreached(layers)}});
}

}  // namespace v0
}  // namespace slimtrim
