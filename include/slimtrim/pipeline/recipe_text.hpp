// Reads recipes written on one line, `method:amount[@criterion]+...`, and the built-in ones.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/importance/registry.hpp>
#include <slimtrim/pipeline/recipe.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// A recipe that has a name.
struct built_in_recipe {
  std::string_view name;
  std::string_view text;
};

/// The rows of Table 3 of arXiv 2406.02500. Expert Drop pools the layers and ranks by mean router probability, as the
/// paper does; `expert_drop:6/8` alone (REAP) is the better choice. DeepSeek's groups are of 64, because 128 does not
/// divide the width of its dense layer.
inline constexpr std::array<built_in_recipe, 8> built_in_recipes{{
    {"mixtral-awq", "awq:4g128"},
    {"mixtral-l8-awq", "layer_drop:8+awq:4g128"},
    {"mixtral-b5-awq", "block_drop:5+awq:4g128"},
    {"mixtral-e2-awq", "expert_drop:6/8@global_router_probability+awq:4g128"},
    {"deepseek-awq", "awq:4g64"},
    {"deepseek-e16-awq", "expert_drop:48/64@global_router_probability+awq:4g64"},
    {"deepseek-l4-awq", "layer_drop:4+awq:4g64"},
    {"deepseek-b4-awq", "block_drop:4+awq:4g64"},
}};

inline constexpr std::array<std::string_view, 8> layer_criteria{
    "cosine", "cosine_without_norm", "angular", "greedy", "greedy_kl", "exhaustive_kl", "consecutive", "random"};
inline constexpr std::array<std::string_view, 3> merge_criteria{"average", "hc_smoe", "ream"};
inline constexpr std::array<std::string_view, 2> neuron_criteria{"heapr", "random"};

namespace detail {

[[nodiscard]] inline std::string joined_names(std::span<std::string_view const> names) {
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i != 0) text += i + 1 == names.size() ? " or " : ", ";
    text += names[i];
  }
  return text;
}

/// A whole number without sign, or nothing.
[[nodiscard]] inline std::optional<index_t> whole_number(std::string_view text) {
  index_t value = 0;
  auto const end = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || text[0] == '-' || end.ec != std::errc() || end.ptr != text.data() + text.size()) return {};
  return value;
}

[[nodiscard]] inline std::vector<std::string_view> split_at(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    std::size_t const at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

[[nodiscard]] inline std::string_view without_spaces(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t' || text.front() == '\n')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\n')) text.remove_suffix(1);
  return text;
}

/// Reads one step; `place` names it in messages.
class step_reader {
 public:
  step_reader(std::string place, std::string_view text) : place_(std::move(place)), text_(text) {}

  [[nodiscard]] step read() {
    std::string_view rest = text_;
    if (std::size_t const at = rest.find('@'); at != std::string_view::npos) {
      criterion_ = rest.substr(at + 1);
      rest = rest.substr(0, at);
    }
    std::string_view name = rest;
    if (std::size_t const colon = rest.find(':'); colon != std::string_view::npos) {
      name = rest.substr(0, colon);
      amount_ = rest.substr(colon + 1);
    }
    auto const known = std::find(method_names.begin(), method_names.end(), name);
    if (known == method_names.end()) fail("method: expected " + joined_names(method_names), name);
    result_.method = static_cast<method>(known - method_names.begin());
    if (is_layer_method(result_.method)) read_count("how many go");
    if (is_expert_method(result_.method)) read_share();
    if (result_.method == method::neuron_drop) read_count("the width kept");
    if (result_.method == method::recover && amount_) fail("amount: expected none", *amount_);
    if (is_quantization(result_.method)) read_grid();
    if (is_pruning(result_.method)) read_sparsity();
    read_criterion();
    return std::move(result_);
  }

 private:
  [[noreturn]] void fail(std::string const& expected, std::string_view found) const {
    throw usage_error(place_ + " '" + std::string(text_) + "': " + expected + ", found '" + std::string(found) + "'");
  }

  void read_count(char const* meaning) {
    auto const value = amount_ ? whole_number(*amount_) : std::nullopt;
    if (!value || *value < 1)
      fail("amount: expected a whole number from 1 (" + std::string(meaning) + ")", amount_.value_or(""));
    result_.count = *value;
  }

  void read_share() {
    auto const parts = split_at(amount_.value_or(""), '/');
    auto const kept = whole_number(parts[0]);
    auto const all = parts.size() == 2 ? whole_number(parts[1]) : std::nullopt;
    if (!kept || !all || *kept < 1 || *all < *kept)
      fail("amount: expected kept/all experts such as 6/8", amount_.value_or(""));
    result_.count = *kept;
    result_.of = *all;
  }

  void read_grid() {
    std::string_view rest = amount_.value_or("");
    auto const digits = [&rest] {
      std::size_t const end = std::min(rest.find_first_not_of("0123456789"), rest.size());
      auto const value = whole_number(rest.substr(0, end));
      rest.remove_prefix(end);
      return value;
    };
    auto const bits = digits();
    if (!bits || (*bits != 2 && *bits != 3 && *bits != 4 && *bits != 8))
      fail("bits: expected 2, 3, 4 or 8, as in 4g128", amount_.value_or(""));
    index_t group = 0;
    if (!rest.empty() && rest[0] == 'g') {
      rest.remove_prefix(1);
      auto const width = digits();
      if (!width || *width < 1 || *width > (index_t{1} << 30))
        fail("group: expected a number of inputs from 1, as in 4g128", *amount_);
      group = *width;
    }
    quantization_step& q = result_.quantization;
    q = default_quantization(result_.method, static_cast<int>(*bits), group);
    for (char const suffix : rest) {
      if (suffix == 'z') {
        q.zero_points = true;
      } else if (suffix == 's') {
        q.zero_points = false;
      } else if (suffix == 'm') {
        if (result_.method == method::awq) fail("suffix: expected z or s: awq searches its ranges by itself", rest);
        q.scale = scale_rule::mse;
      } else {
        fail("suffix: expected z (zero points), s (symmetric) or m (searched scale)", std::string_view(&suffix, 1));
      }
      if (std::count(rest.begin(), rest.end(), suffix) != 1) fail("suffix: expected each letter once", rest);
    }
    if (rest.find('z') != rest.npos && rest.find('s') != rest.npos)
      fail("suffix: expected z (zero points) or s (symmetric)", rest);
  }

  void read_sparsity() {
    std::string_view const amount = amount_.value_or("");
    std::string const expected = "amount: expected a percentage such as 50% or kept:group such as 2:4";
    sparsity_step& p = result_.sparsity;
    if (!amount.empty() && amount.back() == '%') {
      double percent = 0;
      char const* const last = amount.data() + amount.size() - 1;
      auto const end = std::from_chars(amount.data(), last, percent);
      if (end.ec != std::errc() || end.ptr != last) fail(expected, amount);
      if (!(percent > 0 && percent < 100)) fail("amount: expected a percentage above 0 and below 100", amount);
      p.fraction = percent / 100;
      return;
    }
    auto const parts = split_at(amount, ':');
    auto const n = whole_number(parts[0]);
    auto const m = parts.size() == 2 ? whole_number(parts[1]) : std::nullopt;
    if (!n || !m) fail(expected, amount);
    if (*n < 1 || *n >= *m || *m > 64) fail("amount: expected kept:group with 1 <= kept < group <= 64", amount);
    p.n = *n;
    p.m = *m;
    p.fraction = static_cast<double>(*m - *n) / static_cast<double>(*m);
  }

  void read_criterion() {
    std::string_view name = criterion_.value_or("");
    method const m = result_.method;
    if (criterion_ && default_criterion(m).empty()) fail("criterion: expected none for this method", name);
    if (is_expert_method(m) && m != method::expert_merge && name.substr(0, 6) == "global") {
      if (name == "global" || name.substr(0, 7) == "global_") {
        result_.global = true;
        name.remove_prefix(std::min<std::size_t>(7, name.size()));
        if (name.empty()) name = default_criterion(m, true);
      }
    }
    if (!criterion_) {
      result_.criterion = default_criterion(m);
      return;
    }
    std::vector<std::string_view> names;
    if (is_layer_method(m)) names.assign(layer_criteria.begin(), layer_criteria.end());
    if (m == method::expert_drop || m == method::novice)
      for (criterion_entry const& each : expert_criteria()) names.push_back(each.name);
    if (m == method::expert_merge) names.assign(merge_criteria.begin(), merge_criteria.end());
    if (m == method::neuron_drop) names.assign(neuron_criteria.begin(), neuron_criteria.end());
    if (std::find(names.begin(), names.end(), name) == names.end())
      fail("criterion: expected " + joined_names(names), *criterion_);
    result_.criterion = name;
  }

  std::string place_;
  std::string_view text_;
  std::optional<std::string_view> amount_;
  std::optional<std::string_view> criterion_;
  step result_;
};

}  // namespace detail

/// Reads one step, `method:amount[@criterion]`. `place` starts the message of the `usage_error` that is thrown when it
/// cannot be understood.
[[nodiscard]] inline step parse_step(std::string_view text, std::string const& place = "step") {
  return detail::step_reader(place, detail::without_spaces(text)).read();
}

/// Reads a built-in name or a one-line recipe. Throws `usage_error` that says which step and what was expected.
[[nodiscard]] inline recipe parse_recipe(std::string_view text) {
  recipe result;
  result.text = std::string(detail::without_spaces(text));
  std::string_view line = result.text;
  for (built_in_recipe const& known : built_in_recipes)
    if (line == known.name) line = known.text;
  if (line.empty()) throw usage_error("recipe: expected at least one step, found nothing");
  // A word that is neither a step nor a name is more likely a misspelt name.
  if (line.find_first_of(":+@") == line.npos &&
      std::find(method_names.begin(), method_names.end(), line) == method_names.end()) {
    std::string names;
    for (built_in_recipe const& known : built_in_recipes)
      names += (names.empty() ? "" : ", ") + std::string(known.name);
    throw usage_error("recipe: expected a TOML file, steps such as layer_drop:8+awq:4g128, or one of " + names +
                      ", found '" + result.text + "'");
  }
  auto const parts = detail::split_at(line, '+');
  for (std::size_t i = 0; i < parts.size(); ++i)
    result.steps.push_back(parse_step(parts[i], "recipe: step " + std::to_string(i + 1)));
  return result;
}

}  // namespace v0
}  // namespace slimtrim
