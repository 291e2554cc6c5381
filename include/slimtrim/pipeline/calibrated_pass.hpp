// Slimming and recovery that work on tokens: the calibration windows go through the model one decoder layer at a time,
// each layer is trimmed, fitted and slimmed on what the layers before it really hand over, and the changed layer's output
// is what the next layer sees. The original model's stream is carried beside, where a fit needs to know what is lacking.
//
//   for each layer:  query, key, value | output | gate, up of all experts | down of all experts
//
// In memory: one layer, its changed form, the Hessians of a group of experts, and the two streams.
#pragma once

#include <slimtrim/core/progress.hpp>
#include <slimtrim/pipeline/layer_moments.hpp>
#include <slimtrim/pipeline/output_modules.hpp>
#include <slimtrim/pipeline/planned_model.hpp>
#include <slimtrim/pipeline/slim_matrix.hpp>
#include <slimtrim/pipeline/window_streams.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct calibrated_options {
  bool sequential = true;              ///< later layers see the changed outputs of earlier ones
  bool affinity = true;                ///< Hessians of expert inputs weighted by the gate: x g instead of x
  std::uint64_t hessian_bytes = std::uint64_t{2} << 30;  ///< of the experts in flight together
  std::uint64_t joint_bytes = std::uint64_t{2} << 30;    ///< Gram matrix of a joint fit at most
  residual_fit_options fit{};
  progress_callback progress{};
};

/// Receives each finished module.
using slimmed_sink = std::function<void(slimmed_module const&, slim_result const&)>;

namespace detail {

template <host_backend B>
class calibrated_pass {
 public:
  calibrated_pass(B const& backend, opened_model const& input, plan const& p, output_modules const& modules,
                  token_windows const& windows, calibrated_options const& options, slimmed_sink const& sink)
      : backend_(backend),
        input_(input),
        planned_(planned_model(input, p)),
        plan_(p),
        options_(options),
        sink_(sink),
        ends_(load_ends(input.config, *input.weights)),
        changed_(ends_, windows, 0, windows.count()),
        windows_a_batch_(std::clamp<index_t>(stream_batch_tokens / windows.sequence, 1,
                                             std::max<index_t>(windows.count() / 8, 1))) {
    for (slimmed_module const& m : modules.slimmed) {
      modules_[key(m.from)] = &m;
      fits_ = fits_ || wants_fit(m);
    }
    if (fits_ || !options_.sequential) original_.emplace(changed_.clone());
  }

  void run() {
    for (index_t i = 0; i < input_.config.layer_count(); ++i) {
      report_progress(options_.progress, "slim", i, input_.config.layer_count());
      run_layer(i);
      input_.weights->release(i);
    }
    report_progress(options_.progress, "slim", 1, 1);
  }

 private:
  using module_key = std::tuple<int, index_t, index_t>;
  [[nodiscard]] static module_key key(module_id id) { return {static_cast<int>(id.role), id.layer, id.expert}; }
  [[nodiscard]] slimmed_module const* find(module_role role, index_t layer, index_t expert = 0) const {
    auto const at = modules_.find(key({role, layer, expert}));
    return at == modules_.end() ? nullptr : at->second;
  }
  [[nodiscard]] static bool wants_fit(slimmed_module const& m) {
    bool const writes = m.from.role == module_role::output || m.from.role == module_role::down ||
                        m.from.role == module_role::shared_down || m.from.role == module_role::dense_down;
    if (!writes) return false;
    for (step const& s : m.steps) {
      if (s.method == method::recover || s.fit == fit_rule::residual) return true;
      if (s.fit == fit_rule::automatic && needs_data(s) && s.method != method::awq) return true;
    }
    return false;
  }
  [[nodiscard]] static bool wants_hessian(slimmed_module const* m) {
    if (m == nullptr) return false;
    return std::any_of(m->steps.begin(), m->steps.end(),
                       [](step const& s) { return s.method != method::recover && needs_data(s); });
  }

  // Calls piece(first_window, X of `streams`, held_out) batch by batch; products inside use the executor.
  template <class Piece>
  void for_batches(window_streams& streams, Piece&& piece) {
    index_t const n = windows_a_batch_, batches = ceil_div(streams.count(), n);
    for (index_t b = 0; b < batches; ++b) {
      index_t const first = b * n, count = std::min(n, streams.count() - first);
      piece(first, count, rows(streams.all(), first * streams.sequence(), count * streams.sequence()),
            batches >= 4 && b % 4 == 3);
    }
  }
  [[nodiscard]] std::vector<token_sequence> sequences(index_t count) const {
    return std::vector<token_sequence>(static_cast<std::size_t>(count), token_sequence{changed_.sequence(), 0, nullptr});
  }
  [[nodiscard]] matrix_view<float const> original_rows(index_t first, index_t count) {
    return rows(original_->all(), first * changed_.sequence(), count * changed_.sequence());
  }

  // Slims one module (if it is to be) from values that may have been fitted, hands it out and returns what now stands there.
  [[nodiscard]] weight finish(slimmed_module const* m, weight const& now, input_moments* moments,
                              ordered_json const& fit_report = {}) {
    if (m == nullptr) return now;
    slim_result result;
    try {
      result = slim_matrix(backend_, now.view, *m, moments);
    } catch (input_error const& e) {
      throw input_error(input_.files->place(), "tensor '" + module_name(*input_.config.family, m->from) + "': " + e.what());
    }
    if (!fit_report.is_null() && !fit_report.empty()) result.report["fit"] = fit_report;
    sink_(*m, result);
    return slimmed_weight(result);
  }

  [[nodiscard]] static ordered_json fit_json(residual_fit_report const& r) {
    return ordered_json{{"changed", r.changed}, {"ridge", r.ridge},
                        {"residual", r.energy}, {"left", r.error},
                        {"held_out_residual", r.held_out_energy}, {"held_out_left", r.held_out_error}};
  }

  void run_layer(index_t i) {
    auto const target = planned_layer(plan_, i);
    std::optional<decoder_layer> layer;
    if (target) layer = load_layer(planned_.config, *planned_.weights, *target);
    std::optional<decoder_layer> original;
    if (original_) original = load_layer(input_.config, *input_.weights, i);

    if (layer && layer->attention) slim_attention_inputs(i, *layer);
    if (original) advance_attention(input_.config, *original, *original_);
    if (layer && layer->attention) slim_attention_output(i, *layer);
    if (layer) advance_attention(planned_.config, *layer, changed_);
    if (layer && (layer->moe || layer->dense)) slim_feed_forward_inputs(i, *layer);
    if (original) advance_feed_forward(input_.config, *original, *original_);
    if (layer && (layer->moe || layer->dense)) slim_feed_forward_outputs(i, *layer);
    if (layer) advance_feed_forward(planned_.config, *layer, changed_);
    if (!options_.sequential) copy_rows(original_->all(), changed_.all());
  }

  void advance_attention(model_config const& config, decoder_layer const& layer, window_streams& streams) {
    streams.for_each_batch(backend_, windows_a_batch_, [&](index_t, index_t n, matrix_view<float> X) {
      auto const work = workspaces_.take();
      auto const s = sequences(n);
      forward_attention(backend_, config, layer, 0, X, std::span<token_sequence const>(s), *work);
    });
  }
  void advance_feed_forward(model_config const& config, decoder_layer const& layer, window_streams& streams) {
    streams.for_each_batch(backend_, windows_a_batch_, [&](index_t, index_t, matrix_view<float> X) {
      auto const work = workspaces_.take();
      forward_feed_forward(backend_, config, layer, 0, X, *work);
    });
  }

  void slim_attention_inputs(index_t i, decoder_layer& layer) {
    slimmed_module const* const targets[3] = {find(module_role::query, i), find(module_role::key, i),
                                              find(module_role::value, i)};
    weight* const weights[3] = {&layer.attention->query, &layer.attention->key, &layer.attention->value};
    input_moments moments;
    if (wants_hessian(targets[0]) || wants_hessian(targets[1]) || wants_hessian(targets[2])) {
      moments.hessian = zero_moments(input_.config.hidden);
      for_batches(changed_, [&](index_t, index_t, matrix_view<float> X, bool) {
        tensor<float, 2> N(X.extent(0), X.extent(1));
        rms_norm(backend_, X, layer.attention->norm, input_.config.rms_epsilon, N.view());
        backend_.gram_update(1.0F, as_const(N.view()), moments.hessian.view());
        moments.tokens += static_cast<double>(X.extent(0));
      });
    }
    for (int k = 0; k < 3; ++k) {
      input_moments own;
      if (moments.hessian.extent(0) > 0) own.hessian = moments.hessian.clone();
      own.tokens = moments.tokens;
      *weights[k] = finish(targets[k], *weights[k], own.tokens > 0 ? &own : nullptr);
    }
  }

  void slim_attention_output(index_t i, decoder_layer& layer) {
    slimmed_module const* const target = find(module_role::output, i);
    if (target == nullptr) return;
    index_t const in = layer.attention->output.columns(), out = layer.attention->output.rows();
    input_moments moments;
    if (wants_hessian(target)) moments.hessian = zero_moments(in);
    std::optional<split_moments> fit;
    if (wants_fit(*target)) fit.emplace(in, out);
    if (moments.hessian.extent(0) > 0 || fit)
      for_batches(changed_, [&](index_t first, index_t count, matrix_view<float> X, bool held_out) {
        tensor<float, 2> copy(X.extent(0), X.extent(1));
        copy_rows(as_const(X), copy.view());
        context_observer<B> observer;
        observer.backend = &backend_;
        observer.hessian = moments.hessian.extent(0) > 0 ? &moments.hessian : nullptr;
        observer.fit = fit ? &*fit : nullptr;
        if (fit) observer.original = original_rows(first, count);
        observer.held_out = held_out;
        auto const s = sequences(count);
        auto const work = workspaces_.take();
        forward_attention(backend_, planned_.config, layer, 0, copy.view(), std::span<token_sequence const>(s), *work,
                          observer);
        moments.tokens += static_cast<double>(X.extent(0));
      });
    ordered_json report;
    weight now = layer.attention->output;
    if (fit) {
      tensor<float, 2> values = expand(now.view);
      report = fit_json(fit_split(backend_, *fit, values.view(), options_.fit));
      now = own_weight(std::move(values));
    }
    layer.attention->output = finish(target, now, moments.hessian.extent(0) > 0 ? &moments : nullptr, report);
  }

  [[nodiscard]] index_t expert_of(index_t i, std::size_t e) const { return plan_.layer(i).experts[e]; }
  [[nodiscard]] index_t experts_in_flight(index_t columns, std::size_t experts) const {
    auto const one = static_cast<std::uint64_t>(columns) * static_cast<std::uint64_t>(columns) * sizeof(float);
    return std::clamp<index_t>(static_cast<index_t>(options_.hessian_bytes / std::max<std::uint64_t>(one, 1)), 1,
                               std::max<index_t>(static_cast<index_t>(experts), 1));
  }

  // Runs the feed-forward part on copies of all batches with an observer made by `make(first, count, held_out)`; `after` sees the
  // observer and the stream behind the layer.
  template <class Observer, class Prepare, class After>
  void watch_feed_forward(decoder_layer const& layer, Observer& observer, Prepare&& prepare, After&& after) {
    for_batches(changed_, [&](index_t first, index_t count, matrix_view<float> X, bool held_out) {
      tensor<float, 2> copy(X.extent(0), X.extent(1));
      copy_rows(as_const(X), copy.view());
      prepare(observer, first, count, held_out);
      auto const work = workspaces_.take();
      forward_feed_forward(backend_, planned_.config, layer, 0, copy.view(), *work, observer);
      after(observer, as_const(copy.view()));
    });
  }

  void slim_feed_forward_inputs(index_t i, decoder_layer& layer) {
    if (layer.dense) {
      slim_dense_inputs(i, *layer.dense, layer, module_role::dense_gate, module_role::dense_up);
      return;
    }
    std::vector<expert_weights>& experts = layer.moe->experts;
    std::vector<double> tokens(experts.size(), 0.0);
    bool hessians_wanted = false, shared_wanted = false;
    for (std::size_t e = 0; e < experts.size(); ++e)
      hessians_wanted = hessians_wanted || wants_hessian(find(module_role::gate, i, expert_of(i, e))) ||
                        wants_hessian(find(module_role::up, i, expert_of(i, e)));
    if (layer.moe->shared)
      shared_wanted = wants_hessian(find(module_role::shared_gate, i)) || wants_hessian(find(module_role::shared_up, i));
    matrix<float> pooled;
    double pooled_tokens = 0;
    index_t const hidden = input_.config.hidden;
    if (hessians_wanted || shared_wanted) pooled = zero_moments(hidden);
    // What the other passes must see is the layer as it was, so results wait until all groups are done.
    decoder_layer const before = layer;
    index_t const flight = hessians_wanted ? experts_in_flight(hidden, experts.size())
                                           : static_cast<index_t>(experts.size());
    for (index_t first = 0; first < static_cast<index_t>(experts.size()); first += flight) {
      index_t const count = std::min(flight, static_cast<index_t>(experts.size()) - first);
      std::vector<matrix<float>> hessians;
      if (hessians_wanted || (shared_wanted && first == 0)) {
        for (index_t e = 0; e < (hessians_wanted ? count : 0); ++e) hessians.push_back(zero_moments(hidden));
        expert_input_observer<B> observer;
        observer.backend = &backend_;
        observer.first = first;
        observer.hessians = &hessians;
        observer.tokens = &tokens;
        observer.pooled = first == 0 ? &pooled : nullptr;
        observer.weighted = options_.affinity;
        watch_feed_forward(
            before, observer, [](auto&, index_t, index_t, bool) {},
            [&](auto&, matrix_view<float const> X) {
              if (first == 0) pooled_tokens += static_cast<double>(X.extent(0));
            });
      }
      for (index_t e = 0; e < count; ++e) {
        auto const at = static_cast<std::size_t>(first + e);
        swiglu_weights& swiglu = experts[at].swiglu;
        if (experts[at].is_novice()) continue;
        for (auto const& [role, slot] : {std::pair{module_role::gate, &swiglu.gate}, std::pair{module_role::up, &swiglu.up}}) {
          input_moments moments;
          if (hessians_wanted) {
            moments.hessian = hessians[static_cast<std::size_t>(e)].clone();
            moments.tokens = tokens[at];
            moments.pooled = &pooled;
            moments.pooled_tokens = pooled_tokens;
          }
          *slot = finish(find(role, i, expert_of(i, at)), *slot, hessians_wanted ? &moments : nullptr);
        }
      }
    }
    if (layer.moe->shared)
      for (auto const& [role, slot] : {std::pair{module_role::shared_gate, &layer.moe->shared->gate},
                                       std::pair{module_role::shared_up, &layer.moe->shared->up}}) {
        input_moments moments;
        if (shared_wanted) moments.hessian = pooled.clone();
        moments.tokens = pooled_tokens;
        *slot = finish(find(role, i), *slot, shared_wanted ? &moments : nullptr);
      }
  }

  void slim_dense_inputs(index_t i, swiglu_weights& swiglu, decoder_layer const& layer, module_role gate, module_role up) {
    bool const wanted = wants_hessian(find(gate, i)) || wants_hessian(find(up, i));
    input_moments moments;
    if (wanted) {
      moments.hessian = zero_moments(input_.config.hidden);
      for_batches(changed_, [&](index_t, index_t, matrix_view<float> X, bool) {
        tensor<float, 2> N(X.extent(0), X.extent(1));
        rms_norm(backend_, X, layer.feed_forward_norm, input_.config.rms_epsilon, N.view());
        backend_.gram_update(1.0F, as_const(N.view()), moments.hessian.view());
        moments.tokens += static_cast<double>(X.extent(0));
      });
    }
    for (auto const& [role, slot] : {std::pair{gate, &swiglu.gate}, std::pair{up, &swiglu.up}}) {
      input_moments own;
      if (wanted) own.hessian = moments.hessian.clone();
      own.tokens = moments.tokens;
      *slot = finish(find(role, i), *slot, wanted ? &own : nullptr);
    }
  }

  // Every matrix that writes into the stream behind the layer: the experts' down matrices, then the shared or dense one.
  struct writer_slot {
    slimmed_module const* target = nullptr;
    weight* slot = nullptr;
    index_t column = 0;
    std::ptrdiff_t expert = -1;  ///< -1: the shared or dense one
  };

  void slim_feed_forward_outputs(index_t i, decoder_layer& layer) {
    std::vector<writer_slot> slots;
    std::vector<index_t> offsets{0};
    bool hessians_wanted = false, shared_wanted = false, fit_wanted = false;
    if (layer.moe)
      for (std::size_t e = 0; e < layer.moe->experts.size(); ++e) {
        expert_weights& expert = layer.moe->experts[e];
        index_t const width = expert.is_novice() ? 0 : expert.swiglu.down.columns();
        slimmed_module const* const target = find(module_role::down, i, expert_of(i, e));
        if (!expert.is_novice())
          slots.push_back({target, &expert.swiglu.down, offsets.back(), static_cast<std::ptrdiff_t>(e)});
        offsets.push_back(offsets.back() + width);
        hessians_wanted = hessians_wanted || wants_hessian(target);
        fit_wanted = fit_wanted || (target != nullptr && wants_fit(*target));
      }
    weight* const common = layer.dense ? &layer.dense->down : (layer.moe->shared ? &layer.moe->shared->down : nullptr);
    index_t features = offsets.back();
    if (common != nullptr) {
      slimmed_module const* const target = find(layer.dense ? module_role::dense_down : module_role::shared_down, i);
      slots.push_back({target, common, offsets.back(), -1});
      features += common->columns();
      shared_wanted = wants_hessian(target);
      fit_wanted = fit_wanted || (target != nullptr && wants_fit(*target));
    }
    if (slots.empty()) return;
    // The joint Gram matrix of all features, where it fits the budget.
    auto const joint = static_cast<std::uint64_t>(features) * static_cast<std::uint64_t>(features) * sizeof(float);
    bool const jointly = fit_wanted && joint <= options_.joint_bytes;
    std::optional<split_moments> fit;
    if (jointly) fit.emplace(features, input_.config.hidden);
    std::vector<weight> now;
    for (writer_slot const& slot : slots) now.push_back(*slot.slot);

    std::size_t const experts = layer.moe ? layer.moe->experts.size() : 0;
    index_t widest = 0;
    for (std::size_t e = 0; e < experts; ++e) widest = std::max(widest, offsets[e + 1] - offsets[e]);
    index_t const flight = hessians_wanted ? experts_in_flight(widest, experts) : std::max<index_t>(static_cast<index_t>(experts), 1);
    matrix<float> shared_hessian;
    if (shared_wanted) shared_hessian = zero_moments(common->columns());
    double shared_tokens = 0;
    ordered_json report;
    decoder_layer const before = layer;
    std::vector<double> tokens(experts, 0.0);
    for (index_t first = 0; first == 0 || first < static_cast<index_t>(experts); first += flight) {
      index_t const count = std::min(flight, static_cast<index_t>(experts) - first);
      std::vector<matrix<float>> hessians;
      if (hessians_wanted)
        for (index_t e = first; e < first + count; ++e)
          hessians.push_back(zero_moments(offsets[static_cast<std::size_t>(e) + 1] - offsets[static_cast<std::size_t>(e)]));
      if (hessians_wanted || (first == 0 && (fit || shared_wanted))) {
        counting_hidden_observer observer;
        observer.tokens = first == 0 ? &tokens : nullptr;
        observer.backend = &backend_;
        observer.first = first;
        observer.hessians = &hessians;
        observer.shared_hessian = first == 0 && shared_wanted ? &shared_hessian : nullptr;
        observer.weighted = options_.affinity;
        observer.fit = first == 0 && fit ? &*fit : nullptr;
        observer.offsets = &offsets;
        watch_feed_forward(
            before, observer,
            [&](counting_hidden_observer& o, index_t first_window, index_t windows, bool held_out) {
              if (o.fit != nullptr) o.original = original_rows(first_window, windows);
              o.held_out = held_out;
              o.begin();
            },
            [&](counting_hidden_observer& o, matrix_view<float const> X) {
              if (first == 0) shared_tokens += static_cast<double>(X.extent(0));
              o.end(X);
            });
      }
      if (first == 0 && fit) {
        report = fit_jointly(*fit, slots, now);
        fit.reset();
      }
      for (std::size_t k = 0; k < slots.size(); ++k) {
        if (slots[k].expert < first || slots[k].expert >= first + count) continue;
        auto const e = static_cast<std::size_t>(slots[k].expert - first);
        input_moments moments;
        if (hessians_wanted) moments.hessian = std::move(hessians[e]);
        moments.tokens = hessians_wanted ? tokens[static_cast<std::size_t>(slots[k].expert)] : 0;
        *slots[k].slot = finish(slots[k].target, now[k], hessians_wanted ? &moments : nullptr, report);
      }
    }
    if (common != nullptr) {
      input_moments moments;
      if (shared_wanted) moments.hessian = std::move(shared_hessian);
      moments.tokens = shared_tokens;
      *slots.back().slot = finish(slots.back().target, now.back(), shared_wanted ? &moments : nullptr, report);
    }
  }

  struct counting_hidden_observer : hidden_observer<B> {
    std::vector<double>* tokens = nullptr;
    void expert_hidden(index_t layer, expert_batch const& batch, matrix_view<float const> H) {
      if (tokens != nullptr) (*tokens)[static_cast<std::size_t>(batch.expert)] += static_cast<double>(H.extent(0));
      hidden_observer<B>::expert_hidden(layer, batch, H);
    }
  };

  // Fits all down matrices side by side; those that are not to change (no target) keep their values.
  [[nodiscard]] ordered_json fit_jointly(split_moments& moments, std::vector<writer_slot> const& slots,
                                         std::vector<weight>& now) {
    index_t const out = input_.config.hidden, in = moments.fitted.gram.extent(0);
    complete_gram(moments.fitted.gram.view());
    complete_gram(moments.held_out.gram.view());
    tensor<float, 2> joint(out, in);
    for (std::size_t k = 0; k < slots.size(); ++k)
      expand_rows(now[k].view, 0, columns(joint.view(), slots[k].column, now[k].columns()));
    residual_fit_report const report = fit_split(backend_, moments, joint.view(), options_.fit);
    if (report.changed)
      for (std::size_t k = 0; k < slots.size(); ++k) {
        if (slots[k].target == nullptr) continue;
        index_t const width = now[k].columns();
        tensor<float, 2> part(out, width);
        copy_rows(as_const(columns(joint.view(), slots[k].column, width)), part.view());
        now[k] = own_weight(std::move(part));
      }
    return fit_json(report);
  }

  B const& backend_;
  opened_model const& input_;
  opened_model planned_;
  plan const& plan_;
  calibrated_options options_;
  slimmed_sink const& sink_;
  model_ends ends_;
  window_streams changed_;
  std::optional<window_streams> original_{};
  index_t windows_a_batch_;
  std::map<module_key, slimmed_module const*> modules_{};
  bool fits_ = false;
  workspace_pool workspaces_{};
};

}  // namespace detail

/// Whether any of the modules needs the calibration tokens.
[[nodiscard]] inline bool needs_calibrated_pass(output_modules const& modules) {
  for (slimmed_module const& m : modules.slimmed)
    for (step const& s : m.steps)
      if (needs_data(s)) return true;
  return false;
}

/// Slims every module of `modules` that belongs to a decoder layer, on calibration windows, and hands each to `sink`.
///
/// Layers in order; inside a layer query, key and value on the normalised stream, output on the attention's context, gate
/// and up of each expert on the tokens routed to it (one Hessian for both), down on its hidden activations. A step with
/// `fit` first re-fits the matrices that write into the stream to what the original stream has more there: output by
/// itself, the down matrices of a layer jointly. Every fourth batch of windows judges the ridge.
/// Memory: a layer, its changed form, Hessians within `hessian_bytes`, a joint Gram matrix within `joint_bytes`, and one
/// or two streams of windows * S * hidden floats. Byte-identical for any executor. Errors as `slim_matrix`.
template <host_backend B>
void slim_calibrated(B const& backend, opened_model const& input, plan const& p, output_modules const& modules,
                     token_windows const& windows, slimmed_sink const& sink, calibrated_options const& options = {}) {
  detail::calibrated_pass<B>(backend, input, p, modules, windows, options, sink).run();
}

}  // namespace v0
}  // namespace slimtrim
