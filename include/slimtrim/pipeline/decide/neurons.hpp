// Neuron drop: which intermediate neurons of each expert stay.
#pragma once

#include <slimtrim/core/random.hpp>
#include <slimtrim/pipeline/decide/context.hpp>
#include <slimtrim/trim/neuron_drop.hpp>

#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Decides neuron_drop: every expert that has weights keeps `count` neurons, by `heapr` (arXiv 2509.22299 without gradients; needs
/// statistics with `neurons`) or `random`. Throws `usage_error` when the need is not met, the width is not below the present one,
/// or shared experts take their width from the same key of config.json.
template <host_backend B>
void decide_neurons(decide_context<B>& at, step const& s) {
  model_config const& config = at.config();
  plan const before = at.plan_so_far;
  opened_model const now = planned_model(*at.in.model, before);
  ordered_json table = ordered_json::array();
  for (index_t const i : at.expert_layers(s)) {
    layer_plan& layer = at.plan_so_far.layer(i);
    if (config.layer(i).shared_intermediate > 0)
      throw usage_error(short_form(s) + ": layer " + std::to_string(i) +
                        ": expected a model whose shared experts have a width of their own; here it follows from the routed experts'");
    auto const width = planned_config(config, before).layer(*planned_layer(before, i)).intermediate;
    if (s.count > width)
      throw usage_error(short_form(s) + ": layer " + std::to_string(i) + ": expected at most the width that experts have, " +
                        std::to_string(width));
    for (merge_group const& group : layer.merges)
      if (layer.sliced_before(group))
        throw usage_error(short_form(s) + ": expected one neuron_drop before expert_merge or one after it, found both");
    double lost = 0, all = 0;
    for (index_t const e : layer.experts) {
      std::vector<index_t> present(static_cast<std::size_t>(config.layer(i).intermediate));
      std::iota(present.begin(), present.end(), index_t{0});
      if (auto const known = layer.neurons.find(e); known != layer.neurons.end()) present = known->second;
      if (at.is_novice(i, e)) {
        // A novice of the input has no neurons; its list only completes the layer's.
        if (layer.find_novice(e) == nullptr) present.resize(static_cast<std::size_t>(s.count)), layer.neurons[e] = present;
        continue;
      }
      std::vector<double> scores;
      if (s.criterion == "random") {
        constexpr std::uint64_t stream = 0x6e6575726f6eULL;  // apart from the streams of other random choices
        auto const of = static_cast<std::uint64_t>(i * config.layer(i).experts + e);
        for (index_t const n : present) scores.push_back(uniform_at(at.options.seed, stream + of, static_cast<std::uint64_t>(n)));
      } else {
        measurement const& m = at.measured(s);
        tensor<float, 2> const down = expand(now.weights->matrix(*planned_module(before, {module_role::down, i, e})).view);
        neuron_energies const& energies = *m.layer(i).neurons;
        std::vector<double> squares(static_cast<std::size_t>(energies.width()), 0.0);
        std::vector<index_t> places;
        for (std::size_t k = 0; k < present.size(); ++k) {
          places.push_back(m.neuron_position(i, e, present[k]));
          for (index_t r = 0; r < down.extent(0); ++r) {
            double const value = static_cast<double>(down(r, static_cast<index_t>(k)));
            squares[static_cast<std::size_t>(places.back())] += value * value;
          }
        }
        std::vector<double> const measured = neuron_scores(energies, m.position(i, e), squares);
        for (index_t const place : places) scores.push_back(measured[static_cast<std::size_t>(place)]);
      }
      std::vector<index_t> const kept = neuron_drop(scores, s.count);
      std::vector<index_t> stay;
      for (double const score : scores) lost += score, all += score;
      for (index_t const k : kept) {
        stay.push_back(present[static_cast<std::size_t>(k)]);
        lost -= scores[static_cast<std::size_t>(k)];
      }
      layer.neurons[e] = std::move(stay);
    }
    table.push_back({{"layer", i}, {"width", s.count}, {"of", width}, {"lost_share", all > 0 ? std::max(lost, 0.0) / all : 0.0}});
  }
  at.plan_so_far.evidence.push_back({{"step", short_form(s)}, {"criterion", s.criterion}, {"widths", std::move(table)}});
}

}  // namespace v0
}  // namespace slimtrim
