// A plan as JSON: can be read, edited, compared, and checked against the model before anything is done.
#pragma once

#include <slimtrim/io/json_fields.hpp>
#include <slimtrim/pipeline/fingerprint.hpp>
#include <slimtrim/pipeline/plan.hpp>
#include <slimtrim/pipeline/recipe_toml.hpp>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

// Indices as text, runs of consecutive ones as first-last: "0-3 7 9-12". Lists of neurons are too long for JSON numbers.
[[nodiscard]] inline std::string index_text(std::vector<index_t> const& list) {
  std::string text;
  for (std::size_t i = 0; i < list.size();) {
    std::size_t last = i;
    while (last + 1 < list.size() && list[last + 1] == list[last] + 1) ++last;
    text += (text.empty() ? "" : " ") + std::to_string(list[i]);
    if (last > i) text += "-" + std::to_string(list[last]);
    i = last + 1;
  }
  return text;
}

// The inverse; nothing when the text is no such list or has more than 2^20 indices.
[[nodiscard]] inline std::optional<std::vector<index_t>> indices_of_text(std::string_view text) {
  constexpr index_t most = 1 << 20;
  std::vector<index_t> list;
  auto const number = [&](index_t& value) {
    auto const [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (code != std::errc{} || value < 0 || value >= most || text.front() == '-') return false;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    return true;
  };
  while (!text.empty()) {
    index_t first = 0;
    if (!number(first)) return std::nullopt;
    index_t last = first;
    if (!text.empty() && text.front() == '-') {
      text.remove_prefix(1);
      if (text.empty() || !number(last) || last < first) return std::nullopt;
    }
    for (index_t i = first; i <= last; ++i) list.push_back(i);
    if (static_cast<index_t>(list.size()) > most) return std::nullopt;
    if (text.empty()) break;
    if (text.front() != ' ') return std::nullopt;
    text.remove_prefix(1);
    if (text.empty()) return std::nullopt;
  }
  return list;
}

// Throws `input_error` for a key that is not among `known`: a mistyped one would be an edit without effect.
inline void refuse_unknown_keys(ordered_json const& object, std::initializer_list<std::string_view> known, std::string const& at,
                                std::string const& place) {
  if (!object.is_object()) throw input_error(place, (at.empty() ? std::string("the document") : "field '" + at + "'") + ": expected an object");
  for (auto const& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    std::string names;
    for (std::string_view const name : known) names += (names.empty() ? "" : ", ") + std::string(name);
    throw input_error(place, "field '" + (at.empty() ? "" : at + ".") + printable(key) + "': expected one of " + names);
  }
}

// What a plan does, for telling whether somebody has changed it since.
[[nodiscard]] inline std::string plan_digest(ordered_json const& layers, ordered_json const& slimming) {
  return fingerprint_of(std::string_view(ordered_json{{"layers", layers}, {"slimming", slimming}}.dump()));
}

}  // namespace detail

/// The plan as a JSON document; `read_plan` gives it back. `digest` tells whether layers and slimming are still what `recipe` made.
[[nodiscard]] inline ordered_json plan_json(plan const& p) {
  ordered_json layers = ordered_json::array();
  for (std::size_t i = 0; i < p.layers.size(); ++i) {
    layer_plan const& layer = p.layers[i];
    ordered_json one{{"layer", i},
                     {"block", layer.block},
                     {"attention", layer.attention},
                     {"feed_forward", layer.feed_forward},
                     {"experts", layer.experts}};
    for (novice const& each : layer.novices)
      one["novices"].push_back({{"expert", each.expert}, {"constant", each.constant}});
    for (merge_group const& each : layer.merges) {
      one["merges"].push_back({{"kept", each.kept}, {"members", each.members}, {"weights", each.weights}});
      for (std::vector<index_t> const& order : each.orders) one["merges"].back()["orders"].push_back(detail::index_text(order));
    }
    for (auto const& [expert, list] : layer.neurons)
      one["neurons"].push_back({{"expert", expert}, {"kept", detail::index_text(list)}});
    layers.push_back(std::move(one));
  }
  ordered_json slimming = ordered_json::array();
  for (step const& s : p.slimming) slimming.push_back(to_toml(s));
  std::string const digest = detail::plan_digest(layers, slimming);
  return ordered_json{{"slimtrim_plan", 1}, {"recipe", p.recipe},   {"model", p.fingerprint}, {"digest", digest},
                      {"layers", layers},   {"slimming", slimming}, {"evidence", p.evidence}};
}

namespace detail {

// Reads what a plan may say about the inside of a layer's experts; all of it is optional.
class layer_plan_reader {
 public:
  layer_plan_reader(ordered_json const& entry, std::string at, std::string const& place)
      : entry_(entry), at_(std::move(at)), place_(place) {}

  void read_into(layer_plan& layer) const {
    each("novices", [&](ordered_json const& one, std::string const& at) {
      novice n;
      n.expert = index(require_field(one, "expert", place_), at + ".expert");
      for (double const value : numbers(require_field(one, "constant", place_), at + ".constant"))
        n.constant.push_back(static_cast<float>(value));
      layer.novices.push_back(std::move(n));
    });
    each("merges", [&](ordered_json const& one, std::string const& at) {
      merge_group group;
      group.kept = index(require_field(one, "kept", place_), at + ".kept");
      group.members = indices(require_field(one, "members", place_), at + ".members");
      group.weights = numbers(require_field(one, "weights", place_), at + ".weights");
      if (ordered_json const* const orders = find_field(one, "orders"))
        for (ordered_json const& order : list(*orders, at + ".orders")) group.orders.push_back(runs(order, at + ".orders"));
      layer.merges.push_back(std::move(group));
    });
    each("neurons", [&](ordered_json const& one, std::string const& at) {
      index_t const expert = index(require_field(one, "expert", place_), at + ".expert");
      if (!layer.neurons.emplace(expert, runs(require_field(one, "kept", place_), at + ".kept")).second)
        throw input_error(place_, "field '" + at + ".expert': expected each expert once, found " + std::to_string(expert) + " twice");
    });
  }

 private:
  template <class Visit>
  void each(char const* key, Visit&& visit) const {
    ordered_json const* const found = find_field(entry_, key);
    if (found == nullptr) return;
    std::string const at = at_ + "." + key;
    std::size_t i = 0;
    for (ordered_json const& one : list(*found, at)) visit(one, at + "[" + std::to_string(i++) + "]");
  }
  [[nodiscard]] ordered_json const& list(ordered_json const& value, std::string const& at) const {
    if (!value.is_array()) throw input_error(place_, "field '" + at + "': expected a list");
    return value;
  }
  [[nodiscard]] index_t index(ordered_json const& value, std::string const& at) const {
    return integer_value(value, at, 0, 1 << 20, place_);
  }
  [[nodiscard]] std::vector<index_t> indices(ordered_json const& value, std::string const& at) const {
    std::vector<index_t> result;
    for (ordered_json const& one : list(value, at)) result.push_back(index(one, at));
    return result;
  }
  [[nodiscard]] std::vector<index_t> runs(ordered_json const& value, std::string const& at) const {
    auto list = value.is_string() ? indices_of_text(value.get_ref<std::string const&>()) : std::nullopt;
    if (!list) throw input_error(place_, "field '" + at + "': expected indices such as \"0-3 7 9-12\"");
    return std::move(*list);
  }
  [[nodiscard]] std::vector<double> numbers(ordered_json const& value, std::string const& at) const {
    std::vector<double> result;
    for (ordered_json const& one : list(value, at)) {
      if (!one.is_number()) throw input_error(place_, "field '" + at + "': expected numbers");
      result.push_back(one.get<double>());
    }
    return result;
  }

  ordered_json const& entry_;
  std::string at_;
  std::string const& place_;
};

}  // namespace detail

/// Reads a plan. Throws `input_error` naming the field that is missing, of the wrong type or nonsense; whether it fits
/// a model is for `check_plan` to say. Where layers or slimming are not what `digest` says, the recipe's text ends in " (edited)".
/// slimming: steps in TOML, or on one line as in a recipe.
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
  detail::refuse_unknown_keys(document, {"slimtrim_plan", "recipe", "model", "digest", "layers", "slimming", "evidence"}, "", place);
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
    detail::refuse_unknown_keys(layers[i], {"layer", "block", "attention", "feed_forward", "experts", "novices", "merges", "neurons"}, at, place);
    layer_plan layer;
    layer.block = boolean(require_field(layers[i], "block", place), at + ".block");
    layer.attention = boolean(require_field(layers[i], "attention", place), at + ".attention");
    layer.feed_forward = boolean(require_field(layers[i], "feed_forward", place), at + ".feed_forward");
    ordered_json const& experts = require_field(layers[i], "experts", place);
    if (!experts.is_array()) throw input_error(place, "field '" + at + ".experts': expected a list");
    for (ordered_json const& expert : experts)
      layer.experts.push_back(integer_value(expert, at + ".experts", 0, 1 << 20, place));
    detail::layer_plan_reader(layers[i], at, place).read_into(layer);
    p.layers.push_back(std::move(layer));
  }
  ordered_json const& slimming = require_field(document, "slimming", place);
  if (!slimming.is_array()) throw input_error(place, "field 'slimming': expected a list");
  for (std::size_t i = 0; i < slimming.size(); ++i) {
    std::string const at = "field 'slimming[" + std::to_string(i) + "]'";
    if (!slimming[i].is_string()) throw input_error(place, at + ": expected text");
    auto const& one = slimming[i].get_ref<std::string const&>();
    try {
      recipe read = one.find("[[step]]") != one.npos ? parse_recipe_toml(one, "TOML") : parse_recipe(one);
      for (step& parsed : read.steps) {
        if (is_trim(parsed)) throw input_error(place, at + ": expected steps on matrices, found " + short_form(parsed) + ": what it drops is said in layers");
        p.slimming.push_back(std::move(parsed));
      }
    } catch (usage_error const& e) {
      throw input_error(place, at + ": " + e.what());
    }
  }
  if (ordered_json const* const evidence = find_field(document, "evidence")) p.evidence = *evidence;
  ordered_json const* const digest = find_field(document, "digest");
  if (digest != nullptr && *digest != detail::plan_digest(layers, slimming)) p.recipe += " (edited)";
  return p;
}

}  // namespace v0
}  // namespace slimtrim
