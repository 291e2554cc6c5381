// What a recipe must keep to whatever the model: the one check behind `slimtrim recipe`, `plan` and `compress`.
//
// What takes the model - numbers of experts and layers, patterns of names, the format of the output - is checked by `decide`,
// `check_plan` and `compress`.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/pipeline/recipe.hpp>
#include <slimtrim/pipeline/targets.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Why `steps`, in this order, cannot slim one matrix of class `of`; empty when they can. `name` is what the matrix is called.
[[nodiscard]] inline std::string slimming_conflict(std::span<step const* const> steps, std::string_view of, std::string const& name) {
  step const* packed = nullptr;
  for (std::size_t k = 0; k < steps.size(); ++k) {
    step const& s = *steps[k];
    std::string const which = "step '" + short_form(s) + "': '" + name + "': ";
    if (needs_data(s) && (of == "lm_head" || of == "embedding" || of == "router"))
      return which + "works on tokens, and only experts, attention, shared_experts and dense have some: expected other targets";
    if (packed != nullptr) return which + "expected once, is packed already by '" + short_form(*packed) + "'";
    bool const scales_only = s.method == method::awq && k + 1 < steps.size() && steps[k + 1]->method == method::gptq;
    if (is_quantization(s.method) && !scales_only) packed = &s;
  }
  return {};
}

/// Throws `usage_error` for steps that no model could take: a second one on matrices that are packed already, one that works on
/// tokens where there are none, `consecutive` where it means nothing. Targets that are patterns match nothing here.
inline void check_recipe(recipe const& r, std::string const& place) {
  bool blocks_gone = false;
  std::vector<index_t> layers;
  for (step const& s : r.steps) {
    if (s.criterion == "consecutive" && s.method != method::block_drop)
      throw usage_error(place + ": step '" + short_form(s) + "': consecutive is a way to drop blocks");
    if (s.criterion == "consecutive" && blocks_gone)
      throw usage_error(place + ": step '" + short_form(s) + "': consecutive: expected a model that no earlier step took blocks from");
    blocks_gone = blocks_gone || s.method == method::block_drop;
    layers.insert(layers.end(), s.layers.begin(), s.layers.end());
  }
  // One layer that no step names stands for all of them.
  std::sort(layers.begin(), layers.end());
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  layers.push_back(layers.empty() ? 0 : layers.back() + 1);
  for (std::string_view const of : target_classes)
    for (index_t const layer : layers) {
      std::vector<step const*> steps;
      for (step const& s : r.steps)
        if (is_slim(s) && in_layers(s, of, layer) && targets_class(s, of)) steps.push_back(&s);
      std::string const conflict = slimming_conflict(steps, of, std::string(of));
      if (!conflict.empty()) throw usage_error(place + ": " + conflict);
    }
}

}  // namespace v0
}  // namespace slimtrim
