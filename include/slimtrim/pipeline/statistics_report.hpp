// What a statistics file says, as JSON: similarities of every layer and every criterion's scores of its experts.
#pragma once

#include <slimtrim/importance/registry.hpp>
#include <slimtrim/io/json.hpp>
#include <slimtrim/pipeline/model_statistics.hpp>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

/// JSON has no infinities; criteria use them for experts that must stay or were never reached.
[[nodiscard]] inline ordered_json score_list(std::vector<double> const& scores) {
  ordered_json list = ordered_json::array();
  for (double const score : scores) list.push_back(std::isfinite(score) ? ordered_json(score) : ordered_json());
  return list;
}

}  // namespace detail

/// Keys `model tokens windows sequence coverage layers[]`; a layer has `similarity{}` (means over tokens), and where it
/// has experts `tokens` routed to each of them, `unreached` and `importance{criterion: [score]}`.
[[nodiscard]] inline ordered_json statistics_json(model_statistics const& statistics) {
  ordered_json json{{"model", statistics.model},
                    {"tokens", statistics.tokens()},
                    {"windows", statistics.windows.size()},
                    {"sequence", statistics.sequence},
                    {"coverage", statistics.coverage()}};
  ordered_json layers = ordered_json::array();
  for (std::size_t i = 0; i < statistics.layers.size(); ++i) {
    layer_statistics const& layer = statistics.layers[i];
    similarity_statistics const& seen = layer.similarity;
    ordered_json one{{"layer", i},
                     {"similarity",
                      {{"block", seen.block()},
                       {"attention", seen.attention()},
                       {"moe", seen.moe()},
                       {"moe_without_norm", seen.moe_without_norm()},
                       {"block_angle", seen.block_angle()},
                       {"moe_angle", seen.moe_angle()}}},
                     {"residual_norm", seen.residual_norm()},
                     {"moe_output_norm", seen.moe_output_norm()}};
    if (layer.experts() > 0) {
      ordered_json counts = ordered_json::array();
      for (index_t e = 0; e < layer.experts(); ++e) counts.push_back(static_cast<index_t>(layer.router.count(e)));
      one["tokens"] = std::move(counts);
      one["unreached"] = layer.router.unreached();
      ordered_json importance = ordered_json::object();
      for (criterion_entry const& entry : expert_criteria()) {
        bool const has_outputs = layer.outputs.has_value() || entry.name != "mone";
        if (entry.needs == need::statistics && entry.score != nullptr && has_outputs)
          importance[std::string(entry.name)] = detail::score_list(entry.score(layer));
      }
      one["importance"] = std::move(importance);
    }
    layers.push_back(std::move(one));
  }
  json["layers"] = std::move(layers);
  return json;
}

}  // namespace v0
}  // namespace slimtrim
