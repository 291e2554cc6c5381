// What every decision about a trim step has at hand: the input, what was measured on it, and the plan so far.
#pragma once

#include <slimtrim/importance/super_expert_guard.hpp>
#include <slimtrim/pipeline/calibrate.hpp>
#include <slimtrim/pipeline/decide/measurement.hpp>
#include <slimtrim/pipeline/kl_meter.hpp>
#include <slimtrim/pipeline/planned_model.hpp>
#include <slimtrim/pipeline/recipe.hpp>

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
  /// Memory of what `reconstruction` keeps of the tokens of one layer; beyond, evenly spaced windows stand for all.
  std::uint64_t reconstruction_bytes = std::uint64_t{1} << 30;
  std::uint64_t activation_bytes = std::uint64_t{1} << 29;  ///< of the windows that are calibrated together
  progress_callback progress{};
};

/// Which tables a recipe's steps will look at: the large ones are collected only then.
[[nodiscard]] inline statistics_tables tables_of(recipe const& r) {
  statistics_tables tables{false, false, false};
  for (step const& s : r.steps) {
    tables.outputs = tables.outputs || s.criterion == "mone" || s.method == method::novice || s.criterion == "hc_smoe" ||
                     s.criterion == "ream";
    tables.neurons = tables.neurons || (s.method == method::neuron_drop && s.criterion != "random");
  }
  return tables;
}

/// Leading layers that a plan leaves as they are.
[[nodiscard]] inline index_t untouched_layers(plan const& p, plan const& everything) {
  index_t same = 0;
  while (same < static_cast<index_t>(p.layers.size()) && p.layer(same) == everything.layer(same)) ++same;
  return same;
}

/// One recipe's decisions, step after step, on a plan that grows.
template <host_backend B>
class decide_context {
 public:
  decide_context(B const& computes, decide_inputs const& inputs, decide_options const& how, statistics_tables const& tables)
      : backend(computes), in(inputs), options(how), plan_so_far(keep_everything(inputs.model->config)),
        everything_(plan_so_far), tables_(tables) {}

  B const& backend;
  decide_inputs in;
  decide_options options;
  plan plan_so_far;

  [[nodiscard]] model_config const& config() const { return in.model->config; }
  [[nodiscard]] bool has_measured() const { return measured_.has_value(); }
  /// The next step measures again, where `recalibrate` asks for it.
  void step_done() {
    damage_so_far_.reset();
    if (options.recalibrate) measured_.reset();
  }

  /// The statistics for step `s`: those given, or made now. Throws `usage_error` when there is nothing to make them from, or a
  /// table is missing.
  [[nodiscard]] measurement const& measured(step const& s) {
    statistics_tables wanted = tables_;
    wanted.blocks = s.criterion == "consecutive";
    if (measured_ && !missing(*measured_, wanted)) return *measured_;
    bool const as_given = !options.recalibrate || plan_so_far.layers == everything_.layers;
    if (in.statistics != nullptr && as_given) {
      measured_ = measurement{*in.statistics, everything_};
      if (!missing(*measured_, wanted)) return *measured_;
    }
    if (in.data == nullptr) {
      char const* const what = measured_ ? missing(*measured_, wanted) : nullptr;
      measured_.reset();
      if (what == nullptr) throw usage_error(short_form(s) + ": needs statistics: give --stats, or --data to make them");
      throw usage_error(short_form(s) + ": needs the table of " + what + ": give --data, or statistics calibrated with it");
    }
    measured_ = measure(options.recalibrate ? plan_so_far : everything_, wanted);
    return *measured_;
  }
  [[nodiscard]] measurement measure(plan const& when, statistics_tables const& tables) const {
    calibrate_options how;
    how.tables = tables;
    how.activation_bytes = options.activation_bytes;
    how.progress = options.progress;
    return {calibrate(backend, planned_model(*in.model, when), *in.data, how), when};
  }

  /// How much worse than the input the model of `p` predicts the calibration windows.
  [[nodiscard]] double damage(plan const& p) {
    if (!meter_) meter_.emplace(backend, *in.model, *in.data);
    report_progress(options.progress, "compare", compared_++, 0, "variants");
    return (*meter_)(planned_model(*in.model, p), untouched_layers(p, everything_));
  }

  /// The same of the plan so far; measured once a step at most, and 0 while the plan keeps everything.
  [[nodiscard]] double damage_so_far() {
    if (plan_so_far.layers == everything_.layers) return 0;
    if (!damage_so_far_) damage_so_far_ = damage(plan_so_far);
    return *damage_so_far_;
  }

  void require_data(step const& s) const {
    if (in.data == nullptr) throw usage_error(short_form(s) + ": works on tokens: give --data");
  }
  /// Whether the step may touch layer i, and its MoE is still there.
  [[nodiscard]] bool has_experts(step const& s, index_t i) const {
    layer_plan const& layer = plan_so_far.layer(i);
    bool const named = s.layers.empty() || std::find(s.layers.begin(), s.layers.end(), i) != s.layers.end();
    bool const unprotected = i >= s.protect_first && i < config().layer_count() - s.protect_last;
    return named && unprotected && layer.block && layer.feed_forward && config().layer(i).feed_forward == feed_forward_kind::moe;
  }
  /// The layers whose experts the step works on. Throws `usage_error` when there are none, or E of `k/E` is not the model's.
  [[nodiscard]] std::vector<index_t> expert_layers(step const& s) const {
    std::vector<index_t> result;
    for (index_t i = 0; i < config().layer_count(); ++i) {
      if (!has_experts(s, i)) continue;
      index_t const experts = config().layer(i).experts;
      if (s.of != 0 && s.of != experts)
        throw usage_error(short_form(s) + ": expected the model's " + std::to_string(experts) +
                          " experts after the slash (layer " + std::to_string(i) + "), found " + std::to_string(s.of));
      result.push_back(i);
    }
    if (result.empty()) throw usage_error(short_form(s) + ": expected layers with experts, found none");
    return result;
  }
  /// Whether an expert is a constant, by the plan or already in the input.
  [[nodiscard]] bool is_novice(index_t layer, index_t expert) const {
    return plan_so_far.layer(layer).find_novice(expert) != nullptr ||
           in.model->weights->has({module_role::novice, layer, expert});
  }
  /// The layer's experts that still have weights, ascending.
  [[nodiscard]] std::vector<index_t> weighted_experts(index_t layer) const {
    std::vector<index_t> result;
    for (index_t const expert : plan_so_far.layer(layer).experts)
      if (!is_novice(layer, expert)) result.push_back(expert);
    return result;
  }
  /// The experts of layer i that the guard protects; empty unless the step asks for it.
  [[nodiscard]] std::vector<index_t> guarded(step const& s, index_t i) {
    std::vector<index_t> result;
    if (!s.protect_super_experts) return result;
    measurement const& m = measured(s);
    std::vector<std::vector<double>> largest(static_cast<std::size_t>(config().layer_count()));
    for (index_t l = 0; l < config().layer_count(); ++l)
      if (planned_layer(m.when, l) && m.when.layer(l).feed_forward)
        for (index_t e = 0; e < m.layer(l).experts(); ++e) largest[static_cast<std::size_t>(l)].push_back(m.layer(l).norms.largest(e));
    auto const super = super_experts(largest);
    for (index_t const expert : plan_so_far.layer(i).experts)
      if (super[static_cast<std::size_t>(i)][static_cast<std::size_t>(m.position(i, expert))]) result.push_back(expert);
    return result;
  }
  /// The experts of these layers that no token reached, for the evidence of a step that ranked them.
  [[nodiscard]] ordered_json unreached(std::vector<index_t> const& layers) const {
    ordered_json list = ordered_json::array();
    if (!measured_) return list;
    for (index_t const i : layers)
      for (index_t const e : measured_->layer(i).router.unreached())
        list.push_back({{"layer", i}, {"expert", measured_->when.layer(i).experts[static_cast<std::size_t>(e)]}});
    return list;
  }

 private:
  // The name of a table that is wanted and not there, or null.
  [[nodiscard]] static char const* missing(measurement const& m, statistics_tables const& wanted) {
    if (wanted.blocks && !m.statistics.blocks) return "all runs of blocks (--block-table)";
    for (layer_statistics const& layer : m.statistics.layers) {
      if (layer.experts() == 0) continue;
      if (wanted.outputs && !layer.outputs) return "expert outputs";
      if (wanted.neurons && !layer.neurons) return "neuron energies";
    }
    return nullptr;
  }

  plan everything_;
  statistics_tables tables_;
  std::optional<measurement> measured_{};
  std::optional<kl_meter<B>> meter_{};
  index_t compared_ = 0;  ///< variants that the meter has seen
  std::optional<double> damage_so_far_{};
};

}  // namespace v0
}  // namespace slimtrim
