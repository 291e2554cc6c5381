// A recipe: the steps of one compression, in order, as plain data, and how it is written.
//
// Which layers and experts a step takes away is not here: a plan holds that. `recipe_text.hpp` and `recipe_toml.hpp`
// read recipes; this header prints them in the one canonical way.
#pragma once

#include <slimtrim/core/index.hpp>
#include <slimtrim/slim/quantize/group.hpp>        // scale_rule
#include <slimtrim/slim/quantize/sweep_order.hpp>  // sweep_order

#include <array>
#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What a step does. The order is that of `method_names`.
enum class method {
  layer_drop,
  block_drop,
  attention_drop,
  expert_drop,
  expert_merge,
  novice,
  neuron_drop,
  recover,
  rtn,
  gptq,
  awq,
  magnitude,
  wanda,
  sparsegpt,
};

/// Whether a matrix that writes into the residual stream is first re-fitted to what the original stream still lacks.
/// `automatic`: yes where the method works on tokens anyway.
enum class fit_rule { automatic, residual, none };

/// AWQ's channel scales: folded into norms, routers and producers, all as they are stored; the same in powers of two, which no
/// storage type rounds; or none.
enum class channel_scales { folded, power_of_two, none };

/// A uniform grid.
struct quantization_step {
  int bits = 4;             ///< 2, 3, 4 or 8
  index_t group = 0;        ///< inputs that share a scale; 0 is the whole channel
  bool zero_points = false; ///< asymmetric
  scale_rule scale = scale_rule::absmax;
  sweep_order order = sweep_order::natural;
  channel_scales scales = channel_scales::none;
  int descent = 0;          ///< gptq: passes of coordinate descent over codes and scales after the sweep
  friend bool operator==(quantization_step const&, quantization_step const&) = default;
};

/// Which weights become zero: a fraction of each matrix, or all but `n` of each `m` neighbours along the input.
struct sparsity_step {
  double fraction = 0.5;  ///< of the weights, in (0, 1); n : m says (m - n) / m
  index_t n = 0;          ///< kept in each group; 0 when unstructured
  index_t m = 0;          ///< group length; 0 when unstructured
  friend bool operator==(sparsity_step const&, sparsity_step const&) = default;
};

/// One step. Fields that its method does not use keep their defaults.
struct step {
  slimtrim::method method = method::rtn;
  /// layer_drop, block_drop, attention_drop: how many go. expert_drop, expert_merge, novice: experts kept.
  /// neuron_drop: intermediate width kept.
  index_t count = 0;
  /// expert_drop, expert_merge, novice: experts before, which must be the model's number; 0 elsewhere.
  index_t of = 0;
  /// Name of the criterion, without `global_`; empty for methods that have none.
  std::string criterion;
  /// Experts of all layers compete in one pool.
  bool global = false;
  quantization_step quantization;
  sparsity_step sparsity;
  fit_rule fit = fit_rule::automatic;
  /// Ridges that a fit chooses among, relative to the mean Gram diagonal; empty: the usual ones.
  std::vector<double> ridges;
  /// Of the pass over calibration tokens, all of which one step can switch off: later layers see what the earlier ones were made
  /// into; an expert's tokens count with their gate weights.
  bool sequential = true;
  bool affinity = true;
  /// Slimming: classes of matrices ("experts", "attention", "shared_experts", "dense", "lm_head", "embedding",
  /// "router") or globs of tensor names. Empty: every linear of the decoder layers, never the last three.
  std::vector<std::string> targets;
  /// Original indices of the decoder layers that the step may touch; empty: all of them.
  std::vector<index_t> layers;
  /// Trimming: this many layers at the beginning and at the end are kept.
  index_t protect_first = 0;
  index_t protect_last = 0;
  /// expert_drop, novice: experts of extreme outputs stay (`super_experts`).
  bool protect_super_experts = false;

  friend bool operator==(step const&, step const&) = default;
};

/// The steps, and what the user wrote.
struct recipe {
  std::string text;
  std::vector<step> steps;
};

/// What a step must be given besides the weights. `statistics` come from one pass made earlier; `tokens` means a
/// second streamed pass over the calibration data.
enum class requirement { weights, statistics, tokens };

/// Names as they are written in recipes, in the order of `method`.
inline constexpr std::array<std::string_view, 14> method_names{
    "layer_drop", "block_drop", "attention_drop", "expert_drop", "expert_merge", "novice",    "neuron_drop",
    "recover",    "rtn",        "gptq",           "awq",         "magnitude",    "wanda",     "sparsegpt"};
inline constexpr std::array<std::string_view, 3> scale_rule_names{"absmax", "mse", "weighted"};
inline constexpr std::array<std::string_view, 3> sweep_order_names{"automatic", "natural", "activation"};
inline constexpr std::array<std::string_view, 3> channel_scales_names{"folded", "power_of_two", "none"};
inline constexpr std::array<std::string_view, 3> fit_rule_names{"automatic", "residual", "none"};

[[nodiscard]] inline std::string_view to_string(method m) { return method_names[static_cast<std::size_t>(m)]; }
[[nodiscard]] inline std::string_view to_string(scale_rule r) { return scale_rule_names[static_cast<std::size_t>(r)]; }
[[nodiscard]] inline std::string_view to_string(sweep_order o) {
  return sweep_order_names[static_cast<std::size_t>(o)];
}
[[nodiscard]] inline std::string_view to_string(channel_scales s) {
  return channel_scales_names[static_cast<std::size_t>(s)];
}
[[nodiscard]] inline std::string_view to_string(fit_rule f) { return fit_rule_names[static_cast<std::size_t>(f)]; }

/// Whole layers, blocks or attentions go.
[[nodiscard]] constexpr bool is_layer_method(method m) { return m <= method::attention_drop; }
/// Experts go or are put together: the amount is `kept/E`.
[[nodiscard]] constexpr bool is_expert_method(method m) { return m >= method::expert_drop && m <= method::novice; }
[[nodiscard]] constexpr bool is_quantization(method m) { return m >= method::rtn && m <= method::awq; }
[[nodiscard]] constexpr bool is_pruning(method m) { return m >= method::magnitude; }

/// Expert Trimming, T -> T': modules or neurons go.
[[nodiscard]] inline bool is_trim(step const& s) { return s.method <= method::neuron_drop; }
/// Expert Slimming, W -> f(W): bits or single weights go.
[[nodiscard]] inline bool is_slim(step const& s) { return s.method >= method::rtn; }

/// Whether a step of a layer method names as many layers as go, so that there is nothing to choose.
[[nodiscard]] inline bool names_all_layers(step const& s) {
  return is_layer_method(s.method) && !s.layers.empty() && s.count == static_cast<index_t>(s.layers.size()) && s.protect_first == 0 &&
         s.protect_last == 0;
}

/// What the step needs. For `fit_rule::residual` that is always `tokens`.
[[nodiscard]] inline requirement requirement_of(step const& s) {
  if (s.fit == fit_rule::residual) return requirement::tokens;
  if (names_all_layers(s)) return requirement::weights;
  switch (s.method) {
    case method::rtn:
    case method::magnitude: return requirement::weights;
    case method::recover:
    case method::gptq:
    case method::awq:
    case method::wanda:
    case method::sparsegpt: return requirement::tokens;
    default: break;
  }
  for (std::string_view const name : {"reconstruction", "reconstruction_kl", "greedy", "greedy_kl", "exhaustive_kl"})
    if (s.criterion == name) return requirement::tokens;
  // A novice's constant and the guard come from statistics, whoever ranks.
  for (std::string_view const name : {"random", "aimer"})
    if (s.criterion == name && s.method != method::novice && !s.protect_super_experts) return requirement::weights;
  return requirement::statistics;
}

/// Whether the step works on calibration tokens while compressing.
[[nodiscard]] inline bool needs_data(step const& s) { return requirement_of(s) == requirement::tokens; }
/// Whether the step is decided from statistics.
[[nodiscard]] inline bool needs_statistics(step const& s) { return requirement_of(s) == requirement::statistics; }

/// The grid's rules that a method has when the recipe does not say otherwise.
[[nodiscard]] inline quantization_step default_quantization(method m, int bits, index_t group) {
  quantization_step q;
  q.bits = bits;
  q.group = group;
  q.zero_points = m == method::awq;
  q.scales = m == method::awq ? channel_scales::folded : channel_scales::none;
  if (m == method::gptq) {
    q.scale = scale_rule::weighted;
    q.order = bits >= 3 ? sweep_order::activation : sweep_order::natural;
    q.descent = bits <= 3 ? 4 : 0;  // at 4 bits it gains nothing that other text shows
  }
  return q;
}

/// The criterion that a method uses when the recipe names none.
[[nodiscard]] inline std::string_view default_criterion(method m, bool global = false) {
  if (is_layer_method(m)) return "cosine";
  switch (m) {
    case method::expert_drop: return global ? "reap_residual" : "reap";
    case method::expert_merge: return "average";
    case method::novice: return "mone";
    case method::neuron_drop: return "heapr";
    default: return "";
  }
}

namespace detail {

/// The shortest percentage that reads back as `fraction`.
[[nodiscard]] inline std::string percentage(double fraction) {
  std::array<char, 40> text{};
  for (int decimals = 0; decimals <= 17; ++decimals) {
    auto const end = std::to_chars(text.data(), text.data() + text.size(), fraction * 100, std::chars_format::fixed,
                                   decimals);
    double back = 0;
    std::from_chars(text.data(), end.ptr, back);
    if (back / 100 == fraction) return std::string(text.data(), end.ptr) + "%";
  }
  auto const end = std::to_chars(text.data(), text.data() + text.size(), fraction * 100);
  return std::string(text.data(), end.ptr) + "%";
}

/// The shortest decimal that reads back as `value` and is a float to TOML.
[[nodiscard]] inline std::string shortest_number(double value) {
  std::array<char, 40> text{};
  auto const end = std::to_chars(text.data(), text.data() + text.size(), value);
  std::string const number(text.data(), end.ptr);
  return number.find_first_of(".e") == number.npos ? number + ".0" : number;
}

[[nodiscard]] inline std::string toml_string(std::string_view value) {
  std::string text = "\"";
  for (char const c : value) {
    if (c == '"' || c == '\\') text += '\\';
    if (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f) {
      text += c;
    } else {
      constexpr std::string_view digits = "0123456789abcdef";
      text += "\\u00";
      text += digits[static_cast<unsigned char>(c) >> 4];
      text += digits[static_cast<unsigned char>(c) & 15];
    }
  }
  return text + "\"";
}

}  // namespace detail

/// `method:amount[@criterion]`: the part of a step that the one-line form can say. Defaults are left out.
[[nodiscard]] inline std::string short_form(step const& s) {
  std::string text(to_string(s.method));
  if (is_layer_method(s.method) || s.method == method::neuron_drop) text += ':' + std::to_string(s.count);
  if (is_expert_method(s.method)) text += ':' + std::to_string(s.count) + '/' + std::to_string(s.of);
  if (is_quantization(s.method)) {
    quantization_step const& q = s.quantization;
    quantization_step const usual = default_quantization(s.method, q.bits, q.group);
    text += ':' + std::to_string(q.bits);
    if (q.group != 0) text += 'g' + std::to_string(q.group);
    if (q.zero_points != usual.zero_points) text += q.zero_points ? 'z' : 's';
    if (q.scale != usual.scale && q.scale == scale_rule::mse && s.method != method::awq) text += 'm';
  }
  if (is_pruning(s.method)) {
    sparsity_step const& p = s.sparsity;
    text += p.m != 0 ? ':' + std::to_string(p.n) + ':' + std::to_string(p.m)
                     : ':' + detail::percentage(p.fraction);
  }
  if (s.global || s.criterion != default_criterion(s.method))
    text += std::string("@") + (s.global ? "global_" : "") + s.criterion;
  return text;
}

/// The keys of a step that only TOML can say, as `key = value` lines without the method; empty when there are none.
[[nodiscard]] inline std::vector<std::string> long_form_lines(step const& s) {
  std::vector<std::string> lines;
  if (is_quantization(s.method)) {
    quantization_step const& q = s.quantization;
    quantization_step const usual = default_quantization(s.method, q.bits, q.group);
    if (q.scale != usual.scale && q.scale != scale_rule::mse)
      lines.push_back("scale = " + detail::toml_string(to_string(q.scale)));
    if (q.order != usual.order) lines.push_back("order = " + detail::toml_string(to_string(q.order)));
    if (q.scales != usual.scales) lines.push_back("scales = " + detail::toml_string(to_string(q.scales)));
    if (q.descent != usual.descent) lines.push_back("descent = " + std::to_string(q.descent));
  }
  if (s.fit != fit_rule::automatic) lines.push_back("fit = " + detail::toml_string(to_string(s.fit)));
  if (!s.ridges.empty()) {
    std::string line = "ridges = [";
    for (double const ridge : s.ridges) line += (line.back() == '[' ? "" : ", ") + detail::shortest_number(ridge);
    lines.push_back(line + "]");
  }
  if (!s.sequential) lines.push_back("sequential = false");
  if (!s.affinity) lines.push_back("affinity = false");
  if (!s.targets.empty()) {
    std::string line = "targets = [";
    for (std::string const& target : s.targets)
      line += (line.back() == '[' ? "" : ", ") + detail::toml_string(target);
    lines.push_back(line + "]");
  }
  if (!s.layers.empty()) {
    std::string line = "layers = [";
    for (index_t const layer : s.layers) line += (line.back() == '[' ? "" : ", ") + std::to_string(layer);
    lines.push_back(line + "]");
  }
  if (s.protect_first != 0) lines.push_back("protect_first = " + std::to_string(s.protect_first));
  if (s.protect_last != 0) lines.push_back("protect_last = " + std::to_string(s.protect_last));
  if (s.protect_super_experts) lines.push_back("protect_super_experts = true");
  return lines;
}

/// The step as a `[[step]]` table of TOML.
[[nodiscard]] inline std::string to_toml(step const& s) {
  std::string text = "[[step]]\nmethod = " + detail::toml_string(short_form(s)) + "\n";
  for (std::string const& line : long_form_lines(s)) text += line + "\n";
  return text;
}

/// The one canonical spelling: the one-line form when it can say everything, TOML otherwise. Reading it gives the
/// same steps.
[[nodiscard]] inline std::string to_string(recipe const& r) {
  bool short_enough = true;
  for (step const& s : r.steps) short_enough = short_enough && long_form_lines(s).empty();
  std::string text;
  for (step const& s : r.steps) {
    if (!text.empty()) text += short_enough ? "+" : "\n";
    text += short_enough ? short_form(s) : to_toml(s);
  }
  return text;
}

}  // namespace v0
}  // namespace slimtrim
