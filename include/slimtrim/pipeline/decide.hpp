// From a recipe to a plan: every trim step decided, in order, each knowing what the earlier ones left.
//
// By default all steps are decided from statistics of the input model, as the paper does; with `recalibrate` the model as
// left is measured again before each later trim step.
#pragma once

#include <slimtrim/importance/aimer.hpp>
#include <slimtrim/importance/registry.hpp>
#include <slimtrim/pipeline/calibrate.hpp>
#include <slimtrim/pipeline/evaluate.hpp>
#include <slimtrim/pipeline/plan.hpp>
#include <slimtrim/pipeline/planned_model.hpp>
#include <slimtrim/pipeline/recipe.hpp>
#include <slimtrim/trim/block_drop.hpp>
#include <slimtrim/trim/expert_drop.hpp>
#include <slimtrim/trim/layer_drop.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What decisions may be based on. `statistics` of the input model and `data` windows are null when not given.
struct decide_inputs {
  opened_model const* model = nullptr;
  model_statistics const* statistics = nullptr;
  token_windows const* data = nullptr;
};

struct decide_options {
  std::uint64_t seed = 0;
  bool recalibrate = false;
  bool uniform = false;  ///< every layer keeps the same number of experts, even where a criterion would pool layers
  progress_callback progress{};
};

namespace detail {

/// Decides one step after another on a plan that grows.
template <host_backend B>
class plan_builder {
 public:
  plan_builder(B const& backend, decide_inputs const& inputs, decide_options const& options)
      : backend_(backend), in_(inputs), options_(options), plan_(keep_everything(inputs.model->config)) {}

  void run(recipe const& r) {
    plan_.recipe = to_string(r);
    for (step const& s : r.steps) {
      wants_outputs_ = wants_outputs_ || s.criterion == "mone" || s.method == method::novice;
      wants_neurons_ = wants_neurons_ || s.method == method::neuron_drop;
    }
    bool trimmed = false;
    for (step const& s : r.steps) {
      if (!is_trim(s)) {
        plan_.slimming.push_back(s);
        continue;
      }
      if (options_.recalibrate && trimmed) measured_.reset();
      if (is_layer_method(s.method)) {
        drop_layers(s);
      } else if (s.method == method::expert_drop) {
        drop_experts(s);
      } else {
        throw usage_error(std::string(to_string(s.method)) + ": this version decides layer_drop, block_drop, attention_drop "
                          "and expert_drop");
      }
      trimmed = true;
    }
  }
  [[nodiscard]] plan take() { return std::move(plan_); }

 private:
  [[nodiscard]] model_config const& config() const { return in_.model->config; }

  // Statistics by the input's layer and expert numbers, whatever model they were measured on.
  struct measurement {
    model_statistics statistics;
    plan when;  ///< the plan of the model that was measured

    [[nodiscard]] layer_statistics const& layer(index_t original) const {
      return statistics.layer(*planned_layer(when, original));
    }
    [[nodiscard]] index_t position(index_t layer, index_t expert) const {
      std::vector<index_t> const& kept = when.layer(layer).experts;
      return std::lower_bound(kept.begin(), kept.end(), expert) - kept.begin();
    }
  };

  [[nodiscard]] measurement const& measured(step const& s, bool blocks = false) {
    if (!measured_) {
      bool const as_given = !options_.recalibrate || plan_.layers == keep_everything(config()).layers;
      if (in_.statistics != nullptr && as_given) {
        measured_ = measurement{*in_.statistics, keep_everything(config())};
      } else if (in_.data != nullptr) {
        plan const now = options_.recalibrate ? plan_ : keep_everything(config());
        calibrate_options options;
        options.tables.blocks = blocks;
        // The large tables are collected only where a step looks at them.
        options.tables.outputs = wants_outputs_;
        options.tables.neurons = wants_neurons_;
        options.progress = options_.progress;
        measured_ = measurement{calibrate(backend_, planned_model(*in_.model, now), *in_.data, options), now};
      } else {
        throw usage_error(short_form(s) + ": needs statistics: give --stats, or --data to make them");
      }
    }
    if (blocks && !measured_->statistics.blocks) {
      if (in_.data == nullptr)
        throw usage_error(short_form(s) + ": needs the table of all runs of blocks: give --data, or statistics calibrated "
                          "with --block-table");
      measured_.reset();
      return measured_with_blocks(s);
    }
    return *measured_;
  }
  [[nodiscard]] measurement const& measured_with_blocks(step const& s) {
    decide_inputs const before = in_;
    in_.statistics = nullptr;
    measurement const& result = measured(s, true);
    in_ = before;
    return result;
  }

  // How much worse than the input the model of `p` predicts the calibration windows.
  [[nodiscard]] double damage(plan const& p) {
    opened_model const changed = planned_model(*in_.model, p);
    evaluate_options options;
    return evaluate(backend_, changed, in_.model, *in_.data, options).kl_mean;
  }

  [[nodiscard]] static bool selected(step const& s, index_t layer) {
    return s.layers.empty() || std::find(s.layers.begin(), s.layers.end(), layer) != s.layers.end();
  }

  [[nodiscard]] bool present(plan const& p, layer_part part, index_t i) const {
    layer_plan const& layer = p.layer(i);
    if (!layer.block) return false;
    if (part == layer_part::moe) return layer.feed_forward && config().layer(i).feed_forward == feed_forward_kind::moe;
    if (part == layer_part::attention) return layer.attention;
    return true;
  }

  static void remove(plan& p, layer_part part, index_t i) {
    layer_plan& layer = p.layer(i);
    if (part == layer_part::block) layer.block = false;
    if (part == layer_part::attention) layer.attention = false;
    if (part == layer_part::moe) layer.feed_forward = false;
  }

  [[nodiscard]] plan without(layer_part part, std::span<index_t const> dropped) const {
    plan changed = plan_;
    for (index_t const i : dropped) remove(changed, part, i);
    return changed;
  }

  [[nodiscard]] std::vector<layer_candidate> candidates(step const& s, layer_part part, layer_criterion criterion,
                                                        measurement const& m, plan const& p) const {
    std::vector<layer_candidate> result;
    for (index_t i = 0; i < config().layer_count(); ++i)
      if (present(p, part, i) && selected(s, i))
        result.push_back({i, layer_similarity(m.layer(i).similarity, part, criterion)});
    return result;
  }

  void drop_layers(step const& s) {
    layer_part const part = s.method == method::layer_drop
                                ? layer_part::moe
                                : (s.method == method::attention_drop ? layer_part::attention : layer_part::block);
    layer_criterion const criterion = find_layer_criterion(s.criterion);
    layer_budget const budget{s.count, config().layer_count(), s.protect_first, s.protect_last};
    layer_selection chosen;
    std::vector<layer_candidate> scores;
    switch (criterion) {
      case layer_criterion::random: {
        std::vector<index_t> open;
        for (index_t i = 0; i < config().layer_count(); ++i)
          if (present(plan_, part, i) && selected(s, i)) open.push_back(i);
        scores = random_candidates(open, options_.seed);
        chosen = select_most_similar(scores, budget);
        break;
      }
      case layer_criterion::consecutive: {
        if (part != layer_part::block) throw usage_error(short_form(s) + ": consecutive is a way to drop blocks");
        for (layer_plan const& layer : plan_.layers)
          if (!layer.block)
            throw usage_error(short_form(s) + ": consecutive: expected a model that no earlier step took blocks from");
        chosen = block_drop_consecutive(*measured(s, true).statistics.blocks, budget);
        break;
      }
      case layer_criterion::greedy: {
        require_data(s);
        chosen = select_greedily(
            [&](std::span<index_t const> dropped) {
              plan const now = without(part, dropped);
              calibrate_options options;
              options.tables.outputs = options.tables.neurons = false;
              measurement const m{calibrate(backend_, planned_model(*in_.model, now), *in_.data, options), now};
              return candidates(s, part, layer_criterion::cosine, m, now);
            },
            budget);
        break;
      }
      case layer_criterion::greedy_kl: {
        require_data(s);
        scores = candidates(s, part, layer_criterion::cosine, measured(s), plan_);
        layer_selection const one_shot = select_most_similar(scores, budget);
        chosen = select_least_damage(
            scores, budget, [&](std::span<index_t const> dropped) { return damage(without(part, dropped)); },
            {one_shot.dropped});
        break;
      }
      default:
        scores = candidates(s, part, criterion, measured(s), plan_);
        chosen = select_most_similar(scores, budget);
    }
    for (index_t const i : chosen.dropped) remove(plan_, part, i);
    ordered_json evidence{{"step", short_form(s)}, {"criterion", s.criterion}, {"dropped", chosen.dropped}};
    ordered_json table = ordered_json::array();
    for (layer_candidate const& c : scores) table.push_back({{"layer", c.layer}, {"score", c.similarity}});
    evidence["scores"] = std::move(table);
    ordered_json order = ordered_json::array();
    for (layer_candidate const& c : chosen.steps) order.push_back({{"layer", c.layer}, {"score", c.similarity}});
    evidence["order"] = std::move(order);
    if (criterion == layer_criterion::greedy_kl) evidence["kl"] = chosen.damage;
    plan_.evidence.push_back(std::move(evidence));
  }

  void require_data(step const& s) const {
    if (in_.data == nullptr) throw usage_error(short_form(s) + ": works on tokens: give --data");
  }

  // Scores of the experts that layer i still has, in order; low goes first.
  [[nodiscard]] std::vector<double> scores_of(step const& s, criterion_entry const& entry, index_t i) {
    std::vector<index_t> const& kept = plan_.layer(i).experts;
    std::vector<double> scores;
    if (entry.name == "random") {
      auto const all = random_importance{options_.seed}(i, config().layer(i).experts);
      for (index_t const e : kept) scores.push_back(all[static_cast<std::size_t>(e)]);
      return scores;
    }
    if (entry.name == "aimer") {
      for (index_t const e : kept) {
        aimer_importance importance;
        for (module_role const role : {module_role::gate, module_role::up, module_role::down}) {
          weight const w = in_.model->weights->matrix({role, i, e});
          tensor<float, 2> const dense = expand(w.view);
          importance.add(dense.view());
        }
        scores.push_back(importance.score());
      }
      return scores;
    }
    measurement const& m = measured(s);
    std::vector<double> const all = entry.score(m.layer(i));
    for (index_t const e : kept) scores.push_back(all[static_cast<std::size_t>(m.position(i, e))]);
    return scores;
  }

  void drop_experts(step const& s) {
    criterion_choice choice = find_criterion((s.global ? "global_" : "") + s.criterion);
    if (choice.entry->needs == need::tokens)
      throw usage_error(short_form(s) + ": this version ranks experts from weights and statistics");
    std::vector<expert_scores> layers;
    index_t floor = 1;
    for (index_t i = 0; i < config().layer_count(); ++i) {
      if (!present(plan_, layer_part::moe, i) || !selected(s, i)) continue;
      layer_config const& shape = config().layer(i);
      if (s.of != shape.experts)
        throw usage_error(short_form(s) + ": expected the model's " + std::to_string(shape.experts) +
                          " experts after the slash (layer " + std::to_string(i) + "), found " + std::to_string(s.of));
      floor = std::max(floor, shape.top_k);
      layers.push_back({i, scores_of(s, *choice.entry, i), plan_.layer(i).experts, {}});
    }
    if (layers.empty()) throw usage_error(short_form(s) + ": expected layers with experts, found none");
    expert_budget budget;
    budget.keep = s.count;
    budget.global = choice.global && !options_.uniform;
    budget.floor = floor;
    budget.groups = config().routing.groups;
    budget.experts = s.of;
    expert_drop_decision const decision = expert_drop(layers, budget);
    ordered_json evidence{{"step", short_form(s)}, {"criterion", s.criterion}, {"global", budget.global}};
    ordered_json table = ordered_json::array();
    for (std::size_t l = 0; l < decision.layers.size(); ++l) {
      kept_experts const& kept = decision.layers[l];
      table.push_back({{"layer", kept.layer},
                       {"experts", plan_.layer(kept.layer).experts},
                       {"scores", layers[l].scores},
                       {"kept", kept.kept}});
      plan_.layer(kept.layer).experts = kept.kept;
    }
    evidence["layers"] = std::move(table);
    if (measured_ && choice.entry->needs == need::statistics) {
      ordered_json unreached = ordered_json::array();
      for (expert_scores const& layer : layers)
        for (index_t const e : measured_->layer(layer.layer).router.unreached())
          unreached.push_back({{"layer", layer.layer}, {"expert", measured_->when.layer(layer.layer).experts[static_cast<std::size_t>(e)]}});
      evidence["unreached"] = std::move(unreached);
    }
    plan_.evidence.push_back(std::move(evidence));
  }

  B const& backend_;
  decide_inputs in_;
  decide_options options_;
  plan plan_;
  std::optional<measurement> measured_{};
  bool wants_outputs_ = false;
  bool wants_neurons_ = false;
};

}  // namespace detail

/// Decides every trim step of `r` for `inputs.model` and takes over its slim steps.
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
  detail::plan_builder<B> builder(backend, inputs, options);
  builder.run(r);
  plan result = builder.take();
  result.fingerprint = fingerprint_of(*inputs.model->files);
  check_plan(result, inputs.model->config, "recipe");
  return result;
}

}  // namespace v0
}  // namespace slimtrim
