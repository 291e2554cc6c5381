// Which modules a slim step works on.
#pragma once

#include <slimtrim/model/module.hpp>
#include <slimtrim/pipeline/recipe.hpp>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Classes of matrices that `targets` may name; anything else must look like a pattern of tensor names.
inline constexpr std::array<std::string_view, 7> target_classes{"experts", "attention", "shared_experts", "dense",
                                                                "lm_head", "embedding", "router"};

/// Whether a role is a matrix [out, in] that can be slimmed at all (norms, biases and novices are vectors).
[[nodiscard]] constexpr bool is_matrix_role(module_role of) {
  switch (of) {
    case module_role::final_norm:
    case module_role::attention_norm:
    case module_role::feed_forward_norm:
    case module_role::router_bias:
    case module_role::novice: return false;
    default: return true;
  }
}

/// The recipe's class of a role, one of `target_classes`; empty for norms.
[[nodiscard]] constexpr std::string_view target_class(module_role of) {
  switch (of) {
    case module_role::embedding: return "embedding";
    case module_role::head: return "lm_head";
    case module_role::query:
    case module_role::key:
    case module_role::value:
    case module_role::output: return "attention";
    case module_role::router:
    case module_role::router_bias: return "router";
    case module_role::gate:
    case module_role::up:
    case module_role::down:
    case module_role::novice: return "experts";
    case module_role::shared_gate:
    case module_role::shared_up:
    case module_role::shared_down: return "shared_experts";
    case module_role::dense_gate:
    case module_role::dense_up:
    case module_role::dense_down: return "dense";
    default: return {};
  }
}

/// Whether `name` matches `pattern`, in which `*` stands for any run of characters and `?` for one.
[[nodiscard]] inline bool matches_glob(std::string_view pattern, std::string_view name) {
  std::size_t p = 0, n = 0, star = std::string_view::npos, resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p, ++n;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

/// Whether matrices of a class are linears of the decoder layers, which a step without targets takes.
[[nodiscard]] inline bool is_linear_class(std::string_view of) {
  return of == "experts" || of == "attention" || of == "shared_experts" || of == "dense";
}

/// Whether `layers` of a step leaves it matrices of a class in a layer. Head and embedding are part of none.
[[nodiscard]] inline bool in_layers(step const& s, std::string_view of, index_t layer) {
  return s.layers.empty() ||
         ((is_linear_class(of) || of == "router") && std::find(s.layers.begin(), s.layers.end(), layer) != s.layers.end());
}

/// Whether `targets` of a step names a class, or names nothing and the class is one of the usual ones.
[[nodiscard]] inline bool targets_class(step const& s, std::string_view of) {
  return s.targets.empty() ? is_linear_class(of) : std::find(s.targets.begin(), s.targets.end(), of) != s.targets.end();
}

/// Whether slim step `s` works on module `id`. Without targets: every linear of the decoder layers except the router.
/// A glob is matched against the tensor's name. Norms, biases and novices are never matched; `recover` only matches
/// matrices that write into the residual stream.
[[nodiscard]] inline bool is_target(step const& s, model_family const& family, module_id id) {
  if (!is_matrix_role(id.role)) return false;
  if (s.method == method::recover && id.role != module_role::output && id.role != module_role::down &&
      id.role != module_role::shared_down && id.role != module_role::dense_down)
    return false;
  std::string_view const of = target_class(id.role);
  if (!in_layers(s, of, id.layer)) return false;
  if (targets_class(s, of)) return true;
  return std::any_of(s.targets.begin(), s.targets.end(), [name = module_name(family, id)](std::string const& target) {
    return matches_glob(target, name);
  });
}

}  // namespace v0
}  // namespace slimtrim
