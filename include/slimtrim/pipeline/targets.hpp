// Which modules a slim step works on.
#pragma once

#include <slimtrim/model/module.hpp>
#include <slimtrim/pipeline/recipe.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

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

/// The recipe's class of a role: "experts", "attention", "shared_experts", "dense", "router", "lm_head", "embedding",
/// "norms".
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
    default: return "norms";
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

/// Whether slim step `s` works on module `id`. Without targets: every linear of the decoder layers except the router.
/// A glob is matched against the tensor's name. Norms, biases and novices are never matched; `recover` only matches
/// matrices that write into the residual stream.
[[nodiscard]] inline bool is_target(step const& s, model_family const& family, module_id id) {
  if (!is_matrix_role(id.role)) return false;
  if (s.method == method::recover && id.role != module_role::output && id.role != module_role::down &&
      id.role != module_role::shared_down && id.role != module_role::dense_down)
    return false;
  std::string_view const of_class = target_class(id.role);
  bool const in_layers = of_class == "experts" || of_class == "attention" || of_class == "shared_experts" ||
                         of_class == "dense";
  if (!s.layers.empty() && ((!in_layers && of_class != "router") ||
                            std::find(s.layers.begin(), s.layers.end(), id.layer) == s.layers.end()))
    return false;
  if (s.targets.empty()) return in_layers;
  std::string const name = module_name(family, id);
  for (std::string const& target : s.targets)
    if (target == of_class || matches_glob(target, name)) return true;
  return false;
}

}  // namespace v0
}  // namespace slimtrim
