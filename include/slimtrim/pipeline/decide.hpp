// From a recipe to a plan: every trim step decided, in order, each knowing what the earlier ones left.
//
// By default all steps are decided from statistics of the input model, as the paper does; with `recalibrate` the model as
// left is measured again before each later trim step. The steps themselves are in decide/.
#pragma once

#include <slimtrim/pipeline/check_recipe.hpp>
#include <slimtrim/pipeline/decide/experts.hpp>
#include <slimtrim/pipeline/decide/layers.hpp>
#include <slimtrim/pipeline/decide/merges.hpp>
#include <slimtrim/pipeline/decide/neurons.hpp>
#include <slimtrim/pipeline/decide/novices.hpp>
#include <slimtrim/pipeline/plan.hpp>
#include <slimtrim/pipeline/recipe.hpp>

#include <utility>

namespace slimtrim {
inline namespace v0 {

/// Decides every trim step of `r` for `inputs.model` and takes over its slim and recover steps.
///
/// Deterministic for a seed. Throws `usage_error` when a step's need (statistics, tokens) is not met or its amount does
/// not fit the model, `input_error` when the statistics are of another model, `error` from the operators.
template <host_backend B>
[[nodiscard]] plan decide(B const& backend, recipe const& r, decide_inputs const& inputs,
                          decide_options const& options = {}) {
  expects(inputs.model != nullptr, "decide", "expected a model");
  if (inputs.statistics != nullptr && inputs.statistics->model != fingerprint_of(*inputs.model->files))
    throw input_error(inputs.model->files->place(), "expected statistics of this model, found those of model " +
                                                        inputs.statistics->model);
  // What cannot be carried out is refused before anything is measured.
  check_recipe(r, "recipe");
  model_config const& config = inputs.model->config;
  plan asked = keep_everything(config);
  for (step const& s : r.steps) {
    if (!is_trim(s)) asked.slimming.push_back(s);
    for (index_t const layer : s.layers)
      if (is_trim(s) && layer >= config.layer_count())
        throw usage_error(short_form(s) + ": layers: expected 0 to " + std::to_string(config.layer_count() - 1) + ", found " +
                          std::to_string(layer));
  }
  check_slimming(asked, config, "recipe");
  decide_context<B> at(backend, inputs, options, tables_of(r));
  for (step const& s : r.steps) {
    if (!is_trim(s)) {
      at.plan_so_far.slimming.push_back(s);
      continue;
    }
    if (is_layer_method(s.method)) decide_layers(at, s);
    if (s.method == method::expert_drop) decide_expert_drop(at, s);
    if (s.method == method::expert_merge) decide_merges(at, s);
    if (s.method == method::novice) decide_novices(at, s);
    if (s.method == method::neuron_drop) decide_neurons(at, s);
    at.step_done();
  }
  plan result = std::move(at.plan_so_far);
  result.recipe = to_string(r);
  result.fingerprint = fingerprint_of(*inputs.model->files);
  check_plan(result, inputs.model->config, "recipe");
  return result;
}

}  // namespace v0
}  // namespace slimtrim
