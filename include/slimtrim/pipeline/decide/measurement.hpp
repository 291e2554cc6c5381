// Statistics that decisions rest on, by the numbers of the input model, whatever model they were measured on.
#pragma once

#include <slimtrim/pipeline/model_statistics.hpp>
#include <slimtrim/pipeline/plan.hpp>

#include <algorithm>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Statistics of the model that `when` makes of the input.
struct measurement {
  model_statistics statistics;
  plan when;

  /// Of layer `original` of the input, which must have been there.
  [[nodiscard]] layer_statistics const& layer(index_t original) const {
    return statistics.layer(*planned_layer(when, original));
  }
  /// Where the statistics have expert `expert` of the input.
  [[nodiscard]] index_t position(index_t layer, index_t expert) const {
    std::vector<index_t> const& kept = when.layer(layer).experts;
    return std::lower_bound(kept.begin(), kept.end(), expert) - kept.begin();
  }
  [[nodiscard]] std::vector<index_t> positions(index_t layer, std::vector<index_t> const& experts) const {
    std::vector<index_t> result;
    for (index_t const expert : experts) result.push_back(position(layer, expert));
    return result;
  }
  /// Where the statistics have neuron `neuron` of that expert.
  [[nodiscard]] index_t neuron_position(index_t layer, index_t expert, index_t neuron) const {
    auto const kept = when.layer(layer).neurons.find(expert);
    if (kept == when.layer(layer).neurons.end()) return neuron;
    return std::lower_bound(kept->second.begin(), kept->second.end(), neuron) - kept->second.begin();
  }
};

}  // namespace v0
}  // namespace slimtrim
