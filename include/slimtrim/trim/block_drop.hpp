// Block Drop: whole decoder layers go, one by one or as one run.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/statistics/block_similarity.hpp>
#include <slimtrim/trim/select_layers.hpp>

#include <functional>
#include <string>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Block Drop, discrete: the blocks whose output is most like their input. arXiv 2406.02500 sec. 4.3.
/// Errors as `select_most_similar`.
[[nodiscard]] inline layer_selection block_drop(std::vector<layer_candidate> const& candidates,
                                                layer_budget const& budget) {
  return select_most_similar(candidates, budget);
}

/// Similarity of what enters layer `first` and what leaves layer `first + count - 1`.
using similarity_around = std::function<double(index_t first, index_t count)>;

/// Block Drop, consecutive: the run of `count` blocks with the highest similarity around it; ties to the lower start.
///
/// arXiv 2403.17887; arXiv 2406.02500 app. The official code looks at a run of one block more. budget.layers: number of
/// blocks. Cost layers look-ups. Throws `error` when no run fits between the protected ends.
[[nodiscard]] inline layer_selection block_drop_consecutive(similarity_around const& around,
                                                            layer_budget const& budget) {
  std::vector<layer_candidate> all;
  for (index_t l = 0; l < budget.layers; ++l) all.push_back({l, 0});
  auto const eligible = detail::eligible_layers(all, budget);
  detail::check_layer_budget(all.size(), eligible.size(), budget);
  layer_selection result;
  if (budget.count == 0) return result;
  layer_candidate best{-1, 0};
  for (index_t first = budget.protect_first; first + budget.count <= budget.layers - budget.protect_last; ++first) {
    double const similarity = around(first, budget.count);
    ++result.evaluations;
    if (best.layer < 0 || similarity > best.similarity) best = {first, similarity};
  }
  result.steps.push_back(best);
  for (index_t l = best.layer; l < best.layer + budget.count; ++l) result.dropped.push_back(l);
  return result;
}

/// The same from the table of one pass.
[[nodiscard]] inline layer_selection block_drop_consecutive(block_similarity const& table, layer_budget const& budget) {
  expects_equal(budget.layers, table.layers(), "block_drop_consecutive", "layers");
  return block_drop_consecutive([&](index_t first, index_t count) { return table.around(first, count); }, budget);
}

}  // namespace v0
}  // namespace slimtrim
