// What all parts of a search share: windows, the plan of any candidate, and the divergence of any model.
#pragma once

#include <slimtrim/pipeline/decide.hpp>
#include <slimtrim/pipeline/price.hpp>
#include <slimtrim/pipeline/search/search_options.hpp>
#include <slimtrim/pipeline/search/search_space.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What all parts of a search share.
template <host_backend B>
class search_state {
 public:
  search_state(B const& computes, opened_model const& input, model_statistics const* statistics, token_windows const& windows,
               search_options const& how)
      : backend(computes), model(input), options(how),
        fitted(part_of(windows, 0, windows.count() - held_out(how, windows))),
        carried(part_of(fitted, 0, std::min(fitted.count(), std::max<index_t>(how.fitted, 1)))),
        judged(part_of(windows, windows.count() - held_out(how, windows), held_out(how, windows))),
        glanced(part_of(judged, 0, std::min(judged.count(), std::max<index_t>(how.glanced, 1)))),
        everything(keep_everything(input.config)), begin_(clock::now()),
        context_(computes, {&input, statistics, &fitted}, {}, {false, true, false}), glance_(computes, input, glanced), meter_(computes, input, judged) {
    present.assign(searched_classes.size(), false);
    for_each_module(model.config, [&](module_id id) {
      if (std::size_t const c = searched_class(id.role); c < present.size()) present[c] = true;
    });
    std::vector<int> layer_bits{dense_bits};
    layer_bits.insert(layer_bits.end(), options.bits.begin(), options.bits.end());
    std::sort(layer_bits.begin(), layer_bits.end(), std::greater<>());
    for (std::size_t c = 0; c < searched_classes.size(); ++c) {
      std::vector<int> choice{dense_bits};
      if (present[c] && model.format == nullptr) {
        if (is_layer_class(c)) choice = layer_bits;
        else if (options.quantise_ends) choice = {dense_bits, 8, 4};
      }
      choices.push_back(std::move(choice));
    }
  }

  B const& backend;
  opened_model const& model;
  search_options options;
  /// Windows that decide, of these those that calibrate; windows that measure, of these those for short evaluations.
  token_windows fitted, carried, judged, glanced;
  plan everything;
  std::vector<bool> present{};             ///< classes that the model has
  std::vector<std::vector<int>> choices{}; ///< bits by class, falling
  drop_orders orders{};
  damage_table damages{};
  search_result result{};

  [[nodiscard]] model_config const& config() const { return model.config; }
  [[nodiscard]] bool out_of_time() {
    bool const late = std::chrono::duration<double>(clock::now() - begin_).count() > options.seconds;
    result.cut_short = result.cut_short || late;
    return late;
  }
  void tell(char const* stage, index_t done, index_t total, char const* unit) const {
    report_progress(options.progress, stage, done, total, unit);
  }

  /// Statistics of the input, for a step.
  [[nodiscard]] measurement const& measured(step const& s) { return context_.measured(s); }
  /// The plan that a structure makes, without slim steps. Which neurons go does not depend on what else goes, so that each width is
  /// decided once.
  [[nodiscard]] plan structure_plan(structure_choice const& s) {
    structure_choice without_width = s;
    without_width.width = 0;
    plan p = decided(without_width);
    if (s.width == 0) return p;
    plan const& narrow = decided({0, 0, 0, s.width});
    for (std::size_t i = 0; i < p.layers.size(); ++i)
      for (auto const& [expert, neurons] : narrow.layers[i].neurons)
        if (p.layers[i].feed_forward && std::binary_search(p.layers[i].experts.begin(), p.layers[i].experts.end(), expert))
          p.layers[i].neurons[expert] = neurons;
    for (ordered_json const& each : narrow.evidence) p.evidence.push_back(each);
    return p;
  }
  /// The layers that stay.
  [[nodiscard]] static std::vector<index_t> left(plan const& p) {
    std::vector<index_t> layers;
    for (std::size_t i = 0; i < p.layers.size(); ++i)
      if (p.layers[i].block) layers.push_back(static_cast<index_t>(i));
    return layers;
  }
  /// The plan of a candidate, with its recipe.
  [[nodiscard]] plan whole_plan(search_candidate const& c) {
    plan p = structure_plan(c.structure);
    recipe r;
    r.steps = structure_steps(c.structure, orders, config(), options.uniform);
    p.slimming = slim_steps(c, present, left(p), common_group(config(), c.structure.width));
    for (step const& s : p.slimming) r.steps.push_back(s);
    p.recipe = to_string(r);
    return p;
  }
  /// KL on a few windows of any model that begins with `same_layers` layers of the input.
  [[nodiscard]] double kl(opened_model const& changed, index_t same_layers) {
    ++result.evaluations;
    return glance_(changed, same_layers);
  }
  /// KL on all judging windows.
  [[nodiscard]] double full_kl(opened_model const& changed) { return meter_(changed); }
  [[nodiscard]] double kl(plan const& p) { return kl(planned_model(model, p), untouched_layers(p, everything)); }
  [[nodiscard]] bool has_class(std::size_t c, index_t layer) const {
    bool found = false;
    for_each_layer_module(config(), layer, [&](module_id id) { found = found || searched_class(id.role) == c; });
    return found;
  }
  /// Every class of the layers at `bits` where that is a choice.
  [[nodiscard]] std::vector<std::vector<int>> all_at(int bits) const {
    std::vector<std::vector<int>> all;
    for (std::size_t c = 0; c < searched_classes.size(); ++c) {
      bool const choice = is_layer_class(c) && std::find(choices[c].begin(), choices[c].end(), bits) != choices[c].end();
      all.emplace_back(static_cast<std::size_t>(config().layer_count()), choice ? bits : dense_bits);
    }
    return all;
  }
  [[nodiscard]] std::uint64_t goal_bytes(inspection const& size) const {
    return options.goal == size_goal::file_bytes ? size.file_bytes : static_cast<std::uint64_t>(size.total.active_bytes);
  }
  [[nodiscard]] std::uint64_t goal_bytes(searched_recipe const& r) const {
    return options.goal == size_goal::file_bytes ? r.bytes : r.active_bytes;
  }
  /// Whether the layers that a structure would take are there to be taken.
  [[nodiscard]] bool possible(structure_choice const& s) const {
    return static_cast<index_t>(dropped_by(s, orders).second.size()) == s.layers && s.blocks + s.layers < config().layer_count();
  }

 private:
  using clock = std::chrono::steady_clock;
  [[nodiscard]] static index_t held_out(search_options const& how, token_windows const& windows) {
    return std::clamp<index_t>(how.held_out, 1, std::max<index_t>(windows.count() / 4, 1));
  }

  plan const& decided(structure_choice const& s) {
    auto const known = plans_.find(s);
    if (known != plans_.end()) return known->second;
    context_.plan_so_far = everything;
    for (step const& one : structure_steps(s, orders, config(), options.uniform)) {
      if (is_layer_method(one.method)) decide_layers(context_, one);
      if (one.method == method::expert_drop) decide_expert_drop(context_, one);
      if (one.method == method::neuron_drop) decide_neurons(context_, one);
    }
    return plans_.emplace(s, context_.plan_so_far).first->second;
  }

  clock::time_point begin_;
  decide_context<B> context_;
  kl_meter<B> glance_, meter_;
  std::map<structure_choice, plan> plans_{};
};

}  // namespace v0
}  // namespace slimtrim
