// A plan as JSON: can be read, edited, compared, and checked against the model before anything is done.
#pragma once

#include <slimtrim/io/json_fields.hpp>
#include <slimtrim/pipeline/plan.hpp>
#include <slimtrim/pipeline/recipe_toml.hpp>

#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The plan as a JSON document; `read_plan` gives it back.
[[nodiscard]] inline ordered_json plan_json(plan const& p) {
  ordered_json layers = ordered_json::array();
  for (std::size_t i = 0; i < p.layers.size(); ++i) {
    layer_plan const& layer = p.layers[i];
    layers.push_back({{"layer", i},
                      {"block", layer.block},
                      {"attention", layer.attention},
                      {"feed_forward", layer.feed_forward},
                      {"experts", layer.experts}});
  }
  ordered_json slimming = ordered_json::array();
  for (step const& s : p.slimming) slimming.push_back(to_toml(s));
  return ordered_json{{"slimtrim_plan", 1},   {"recipe", p.recipe},     {"model", p.fingerprint},
                      {"layers", layers},     {"slimming", slimming},   {"evidence", p.evidence}};
}

/// Reads a plan. Throws `input_error` naming the field that is missing, of the wrong type or nonsense; whether it fits
/// a model is for `check_plan` to say.
[[nodiscard]] inline plan read_plan(ordered_json const& document, std::string const& place) {
  auto const boolean = [&](ordered_json const& value, std::string const& key) {
    if (!value.is_boolean()) throw input_error(place, "field '" + key + "': expected true or false, found " + value.dump());
    return value.get<bool>();
  };
  auto const text = [&](char const* key) {
    ordered_json const& value = require_field(document, key, place);
    if (!value.is_string()) throw input_error(place, "field '" + std::string(key) + "': expected text");
    return value.get<std::string>();
  };
  if (integer_value(require_field(document, "slimtrim_plan", place), "slimtrim_plan", 0, 1000000, place) != 1)
    throw input_error(place, "field 'slimtrim_plan': expected version 1");
  plan p;
  p.recipe = text("recipe");
  p.fingerprint = text("model");
  ordered_json const& layers = require_field(document, "layers", place);
  if (!layers.is_array()) throw input_error(place, "field 'layers': expected a list");
  for (std::size_t i = 0; i < layers.size(); ++i) {
    std::string const at = "layers[" + std::to_string(i) + "]";
    auto const number = integer_value(require_field(layers[i], "layer", place), at + ".layer", 0, 1 << 20, place);
    if (number != static_cast<index_t>(i))
      throw input_error(place, "field '" + at + ".layer': expected " + std::to_string(i) + ", found " + std::to_string(number));
    layer_plan layer;
    layer.block = boolean(require_field(layers[i], "block", place), at + ".block");
    layer.attention = boolean(require_field(layers[i], "attention", place), at + ".attention");
    layer.feed_forward = boolean(require_field(layers[i], "feed_forward", place), at + ".feed_forward");
    ordered_json const& experts = require_field(layers[i], "experts", place);
    if (!experts.is_array()) throw input_error(place, "field '" + at + ".experts': expected a list");
    for (ordered_json const& expert : experts)
      layer.experts.push_back(integer_value(expert, at + ".experts", 0, 1 << 20, place));
    p.layers.push_back(std::move(layer));
  }
  ordered_json const& slimming = require_field(document, "slimming", place);
  if (!slimming.is_array()) throw input_error(place, "field 'slimming': expected a list");
  for (ordered_json const& s : slimming) {
    if (!s.is_string()) throw input_error(place, "field 'slimming': expected text");
    for (step& parsed : parse_recipe_toml(s.get<std::string>(), place).steps) p.slimming.push_back(std::move(parsed));
  }
  if (ordered_json const* const evidence = find_field(document, "evidence")) p.evidence = *evidence;
  return p;
}

}  // namespace v0
}  // namespace slimtrim
