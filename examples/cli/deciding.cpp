#include "deciding.hpp"

#include <slimtrim/pipeline/plan_file.hpp>
#include <slimtrim/pipeline/recipe_toml.hpp>
#include <slimtrim/pipeline/statistics_file.hpp>

#include <algorithm>

namespace cli {

void decide_flags::declare(option_set& options) {
  options.text("--recipe", recipe, "Built-in name, steps method:amount[@criterion] joined by +, or a TOML file "
                                   "(slimtrim recipe --help)");
  options.text("--stats", statistics, "Statistics file of this model, for steps that are decided from statistics");
  data.declare(options, false, "Calibration text, for steps that work on tokens and where --stats is not given");
  options.flag("--uniform", uniform, "Every layer keeps the same number of experts, so that stock loaders accept it; no global_ criteria");
  options.flag("--recalibrate", recalibrate, "Measure again, on the model as left, before each later trim step");
}

namespace {

// A step that ranked experts of which nothing is known says so.
void note_unreached(session const& at, slimtrim::plan const& plan) {
  for (slimtrim::ordered_json const& step : plan.evidence) {
    auto const unreached = step.find("unreached");
    if (unreached == step.end() || unreached->empty()) continue;
    std::string list;
    for (std::size_t i = 0; i < unreached->size() && i < 20; ++i)
      list += (i == 0 ? "" : ", ") + (*unreached)[i].at("layer").dump() + "/" + (*unreached)[i].at("expert").dump();
    if (unreached->size() > 20) list += " and " + std::to_string(unreached->size() - 20) + " more";
    at.note("slimtrim: " + step.value("step", std::string()) + ": no token reached these experts (layer/expert), and their scores mean nothing: " + list);
  }
}

}  // namespace

decided decide_plan(session const& at, engine const& run, slimtrim::opened_model const& model,
                    decide_flags const& flags, bool carry_out) {
  slimtrim::recipe const recipe = slimtrim::load_recipe(flags.recipe);
  for (slimtrim::step const& s : recipe.steps) {
    // What slims is decided without text; only carrying it out takes some.
    if (slimtrim::needs_data(s) && flags.data.data.empty() && (carry_out || slimtrim::is_trim(s)))
      throw slimtrim::usage_error("recipe: step '" + slimtrim::short_form(s) + "' works on tokens: expected --data");
    if (!flags.uniform) continue;
    if (s.global)
      throw slimtrim::usage_error("--uniform: step '" + slimtrim::short_form(s) + "' pools the layers, which then keep different numbers of "
                                  "experts: expected a criterion without global_");
    if (s.method == slimtrim::method::layer_drop || s.method == slimtrim::method::attention_drop)
      throw slimtrim::usage_error("--uniform: step '" + slimtrim::short_form(s) + "' leaves layers that differ: expected block_drop or expert_drop");
  }
  std::optional<slimtrim::model_statistics> statistics;
  if (!flags.statistics.empty()) statistics = slimtrim::load_statistics(flags.statistics, model.config);
  decided result;
  if (!flags.data.data.empty()) result.windows = run.windows(model, flags.data);
  slimtrim::decide_options options;
  options.seed = at.seed;
  options.recalibrate = flags.recalibrate;
  options.uniform = flags.uniform;
  options.progress = at.progress;
  slimtrim::decide_inputs const inputs{&model, statistics ? &*statistics : nullptr,
                                       result.windows ? &*result.windows : nullptr};
  result.plan = run.decide(recipe, inputs, options);
  note_unreached(at, result.plan);
  return result;
}

slimtrim::plan read_plan_file(std::string const& path, slimtrim::opened_model const& model) {
  slimtrim::plan plan = slimtrim::read_plan(slimtrim::read_json_file(path), path);
  std::string const here = slimtrim::fingerprint_of(*model.files);
  if (!plan.fingerprint.empty() && plan.fingerprint != here)
    throw slimtrim::input_error(path, "field 'model': expected a plan for this model (" + here + "), found one for " +
                                          slimtrim::printable(plan.fingerprint));
  slimtrim::check_plan(plan, model.config, path);
  return plan;
}

void note_loaders(session const& at, slimtrim::opened_model const& model, slimtrim::plan const& plan,
                  std::string const& format) {
  int fewest_bits = 8;
  bool quantises = false, zero_points = false;
  for (slimtrim::step const& s : plan.slimming)
    if (slimtrim::is_quantization(s.method)) {
      quantises = true;
      zero_points = zero_points || s.quantization.zero_points;
      fewest_bits = std::min(fewest_bits, s.quantization.bits);
    }
  std::string method = model.format ? (model.format->writes() ? std::string(model.format->method()) : "fp8") : "";
  if (method.empty() && quantises) method = format.empty() ? "compressed-tensors" : format;
  for (std::string const& note :
       slimtrim::loading_notes(slimtrim::planned_config(model.config, plan), method, fewest_bits, zero_points,
                               slimtrim::makes_novices(plan)))
    at.note("slimtrim: " + note);
}

}  // namespace cli
