// Reads recipes from TOML files: one `[[step]]` table a step, in order.
//
//   [[step]]
//   method = "gptq:3g128"
//   targets = ["experts", "model.layers.*.mlp.down_proj.weight"]
//   layers = [4, 5, 6]
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/pipeline/check_recipe.hpp>
#include <slimtrim/pipeline/recipe.hpp>
#include <slimtrim/pipeline/recipe_text.hpp>
#include <slimtrim/pipeline/targets.hpp>  // target_classes

#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

/// Turns one `[[step]]` table into a step; `place` starts every message.
class step_table_reader {
 public:
  step_table_reader(toml::table const& table, std::string place) : table_(table), place_(std::move(place)) {}

  [[nodiscard]] step read() {
    auto const text = table_["method"].value_exact<std::string>();
    if (!text) fail("method", "a string such as \"rtn:4g128\"");
    result_ = parse_step(*text, place_ + ": method");
    for (auto const& [key, node] : table_) {
      std::string_view const name = key.str();
      if (name == "method") continue;
      if (name == "criterion") read_criterion(*text);
      else if (name == "bits" || name == "group" || name == "zero_points" || name == "scale" || name == "order" ||
               name == "scales" || name == "descent")
        require(is_quantization(result_.method), name, "only with rtn, gptq or awq");
      else if (name == "fit") result_.fit = choice<fit_rule>("fit", fit_rule_names);
      else if (name == "ridges") read_ridges();
      else if (name == "sequential") result_.sequential = boolean("sequential");
      else if (name == "affinity") result_.affinity = boolean("affinity");
      else if (name == "targets") read_targets();
      else if (name == "layers") read_layers();
      else if (name == "protect_first") result_.protect_first = number("protect_first", 0);
      else if (name == "protect_last") result_.protect_last = number("protect_last", 0);
      else if (name == "protect_super_experts") result_.protect_super_experts = boolean(name);
      else fail(name, "one of method, criterion, bits, group, zero_points, scale, scales, order, descent, fit, ridges, sequential, affinity, "
                      "targets, layers, protect_first, protect_last or protect_super_experts");
    }
    if (is_quantization(result_.method)) read_grid();
    bool const can_fit = result_.method == method::gptq || result_.method == method::awq || is_pruning(result_.method);
    require(can_fit || result_.fit == fit_rule::automatic, "fit", "only with gptq, awq, magnitude, wanda or sparsegpt");
    bool const on_tokens = needs_data(result_) && !is_trim(result_);
    require(on_tokens || result_.ridges.empty(), "ridges", "only with a step that slims on calibration tokens");
    require(on_tokens || result_.sequential, "sequential", "false only with a step that slims on calibration tokens");
    require(on_tokens || result_.affinity, "affinity", "false only with a step that slims on calibration tokens");
    require(is_trim(result_) || (result_.protect_first == 0 && result_.protect_last == 0), "protect_first",
            "only with a method that trims");
    require(!result_.protect_super_experts || result_.method == method::expert_drop || result_.method == method::novice,
            "protect_super_experts", "only with expert_drop or novice");
    require(!is_trim(result_) || result_.targets.empty(), "targets", "only with a method that slims");
    return std::move(result_);
  }

 private:
  [[noreturn]] void fail(std::string_view key, std::string const& expected) const {
    std::string found = "nothing";
    if (toml::node const* const node = table_.get(key)) {
      std::ostringstream text;
      node->visit([&text](auto const& value) { text << value; });
      found = text.str();
    }
    throw usage_error(place_ + ": " + std::string(key) + ": expected " + expected + ", found " + found);
  }
  void require(bool condition, std::string_view key, std::string const& expected) const {
    if (!condition) fail(key, expected);
  }

  [[nodiscard]] index_t number(std::string_view key, std::int64_t least, std::int64_t most = INT64_MAX) const {
    auto const value = table_[key].value_exact<std::int64_t>();
    if (!value || *value < least || *value > most)
      fail(key, "a whole number from " + std::to_string(least) + (most != INT64_MAX ? " to " + std::to_string(most) : std::string()));
    return static_cast<index_t>(*value);
  }

  [[nodiscard]] bool boolean(std::string_view key) const {
    auto const value = table_[key].value_exact<bool>();
    if (!value) fail(key, "true or false");
    return *value;
  }

  template <class Enum, std::size_t N>
  [[nodiscard]] Enum choice(std::string_view key, std::array<std::string_view, N> const& names) const {
    auto const text = table_[key].value_exact<std::string>();
    auto const found = std::find(names.begin(), names.end(), text ? std::string_view(*text) : std::string_view());
    if (found == names.end()) fail(key, joined_names(names));
    return static_cast<Enum>(found - names.begin());
  }

  void read_criterion(std::string const& text) {
    auto const name = table_["criterion"].value_exact<std::string>();
    if (!name) fail("criterion", "a string");
    if (text.find('@') != text.npos) fail("criterion", "none beside a method that names one with @");
    step const named = parse_step(text + "@" + *name, place_ + ": method");
    result_.criterion = named.criterion;
    result_.global = named.global;
  }

  void read_grid() {
    quantization_step& q = result_.quantization;
    int const bits_before = q.bits;
    if (table_.contains("bits")) {
      index_t const bits = number("bits", 2);
      require(bits == 2 || bits == 3 || bits == 4 || bits == 8, "bits", "2, 3, 4 or 8");
      q.bits = static_cast<int>(bits);
    }
    if (table_.contains("group")) q.group = number("group", 0);
    // Rules that follow from the width are chosen again; what the text or the table says stays.
    if (q.bits != bits_before) {
      quantization_step const usual = default_quantization(result_.method, q.bits, q.group);
      q.order = usual.order;
      q.descent = usual.descent;
    }
    if (table_.contains("zero_points")) q.zero_points = boolean("zero_points");
    require(result_.method != method::awq || !table_.contains("scale"), "scale", "only with rtn or gptq: awq searches its ranges by itself");
    if (table_.contains("scale")) q.scale = choice<scale_rule>("scale", scale_rule_names);
    if (table_.contains("order")) q.order = choice<sweep_order>("order", sweep_order_names);
    if (table_.contains("scales")) q.scales = choice<channel_scales>("scales", channel_scales_names);
    if (table_.contains("descent")) q.descent = static_cast<int>(number("descent", 0, 1000));
    bool const is_gptq = result_.method == method::gptq;
    require(is_gptq || result_.method == method::awq || q.scales == channel_scales::none, "scales", "only with awq or gptq");
    require(is_gptq || q.scale != scale_rule::weighted, "scale", "absmax or mse (weighted is for gptq)");
    require(is_gptq || q.descent == 0, "descent", "only with gptq");
    require(is_gptq || q.order == sweep_order::natural, "order", "natural (activation is for gptq)");
  }

  void read_ridges() {
    toml::array const* const list = table_["ridges"].as_array();
    if (list == nullptr || list->empty()) fail("ridges", "a list of numbers above 0");
    for (toml::node const& node : *list) {
      auto const value = node.value<double>();
      if (!value || !(*value > 0) || !std::isfinite(*value)) fail("ridges", "numbers above 0");
      result_.ridges.push_back(*value);
    }
  }

  void read_targets() {
    toml::array const* const list = table_["targets"].as_array();
    if (list == nullptr || list->empty()) fail("targets", "a list of strings");
    for (toml::node const& node : *list) {
      auto const text = node.value_exact<std::string>();
      bool const known =
          text && std::find(target_classes.begin(), target_classes.end(), *text) != target_classes.end();
      if (!text || (!known && text->find_first_of("*?.") == text->npos))
        fail("targets", joined_names(target_classes) + ", or a glob of tensor names with * or ?");
      result_.targets.push_back(*text);
    }
  }

  void read_layers() {
    toml::array const* const list = table_["layers"].as_array();
    if (list == nullptr || list->empty()) fail("layers", "a list of layer indices");
    for (toml::node const& node : *list) {
      auto const value = node.value_exact<std::int64_t>();
      if (!value || *value < 0) fail("layers", "whole numbers from 0");
      result_.layers.push_back(static_cast<index_t>(*value));
    }
    std::sort(result_.layers.begin(), result_.layers.end());
    if (std::adjacent_find(result_.layers.begin(), result_.layers.end()) != result_.layers.end())
      fail("layers", "each index once");
  }

  toml::table const& table_;
  std::string place_;
  step result_;
};

}  // namespace detail

/// Reads a recipe from the text of a TOML file; `source` names it in messages.
/// Throws `usage_error` with line, step and key for anything that cannot be understood.
[[nodiscard]] inline recipe parse_recipe_toml(std::string_view text, std::string const& source) {
  toml::table document;
  try {
    document = toml::parse(text, source);
  } catch (toml::parse_error const& failure) {
    auto const& at = failure.source().begin;
    throw usage_error(source + ": line " + std::to_string(at.line) + ", column " + std::to_string(at.column) +
                      ": expected TOML: " + std::string(failure.description()));
  }
  for (auto const& [key, node] : document)
    if (key.str() != "step")
      throw usage_error(source + ": expected only [[step]] tables, found '" + std::string(key.str()) + "'");
  toml::array const* const steps = document["step"].as_array();
  if (steps == nullptr || steps->empty()) throw usage_error(source + ": expected at least one [[step]], found none");
  recipe result;
  result.text = std::string(text);
  for (std::size_t i = 0; i < steps->size(); ++i) {
    std::string const place = source + ": step " + std::to_string(i + 1);
    toml::table const* const table = (*steps)[i].as_table();
    if (table == nullptr) throw usage_error(place + ": expected a table");
    result.steps.push_back(detail::step_table_reader(*table, place).read());
  }
  return result;
}

namespace detail {

[[nodiscard]] inline recipe read_recipe(std::string const& argument) {
  constexpr std::uintmax_t largest_file = 1 << 20;
  if (argument.find("[[step]]") != argument.npos) return parse_recipe_toml(argument, "recipe");
  std::filesystem::path const path(argument);
  std::error_code ignored;
  bool const named_toml = path.extension() == ".toml";
  if (!named_toml && !std::filesystem::is_regular_file(path, ignored)) return parse_recipe(argument);
  if (!std::filesystem::is_regular_file(path, ignored))
    throw input_error(argument, "expected a TOML file, found none");
  if (std::filesystem::file_size(path, ignored) > largest_file)
    throw input_error(argument, "expected a recipe of at most 1 MiB");
  std::ifstream file(path, std::ios::binary);
  std::string const text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) throw input_error(argument, "expected a readable file");
  return parse_recipe_toml(text, argument);
}

}  // namespace detail

/// What `--recipe` takes: a built-in name, a one-line recipe, the text of a TOML recipe, or the path of a TOML file (ending in
/// `.toml`, or an existing file). Throws `input_error` for a file that cannot be read and `usage_error` for one that makes no sense,
/// or that no model could take (`check_recipe`).
[[nodiscard]] inline recipe load_recipe(std::string const& argument) {
  recipe result = detail::read_recipe(argument);
  check_recipe(result, "recipe");
  return result;
}

}  // namespace v0
}  // namespace slimtrim
