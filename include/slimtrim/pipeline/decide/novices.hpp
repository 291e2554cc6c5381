// Novices (MoNE): experts that answer with a constant from now on.
#pragma once

#include <slimtrim/pipeline/decide/experts.hpp>
#include <slimtrim/trim/novice.hpp>

#include <algorithm>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Decides which experts become the mean of their outputs. arXiv 2507.00390; `k` of `k/E` keep their weights, router rows all
/// stay. Needs statistics with `outputs`. Errors as `choose_kept_experts`.
template <host_backend B>
void decide_novices(decide_context<B>& at, step const& s) {
  expert_choice choice = choose_kept_experts(at, s, 1);
  measurement const& m = at.measured(s);
  for (kept_experts const& each : choice.layers) {
    layer_plan& layer = at.plan_so_far.layer(each.layer);
    std::vector<index_t> const candidates = at.weighted_experts(each.layer);
    // In the numbers of the statistics, and back.
    novice_decision const decided =
        replace_by_novices({each.layer, m.positions(each.layer, each.kept)}, m.positions(each.layer, candidates), *m.layer(each.layer).outputs);
    for (novice const& made : decided.novices) {
      index_t const expert = m.when.layer(each.layer).experts[static_cast<std::size_t>(made.expert)];
      layer.novices.push_back({expert, made.constant});
      std::vector<index_t> members;
      if (merge_group const* const group = layer.find_merge(expert)) members = group->members;
      for (index_t const member : members) layer.neurons.erase(member);
      layer.neurons.erase(expert);
      std::erase_if(layer.merges, [&](merge_group const& group) { return group.kept == expert; });
    }
    std::sort(layer.novices.begin(), layer.novices.end(), [](novice const& a, novice const& b) { return a.expert < b.expert; });
  }
  at.plan_so_far.evidence.push_back(std::move(choice.evidence));
}

}  // namespace v0
}  // namespace slimtrim
