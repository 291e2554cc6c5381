// Slimming and recovery that work on tokens: the calibration windows go through the model one decoder layer at a time,
// each layer is trimmed, fitted and slimmed on what the layers before it really hand over, and the changed layer's output
// is what the next layer sees. The original model's stream is carried beside, where a fit needs to know what is lacking.
//
//   for each layer:  AWQ's scales | query, key, value | output | AWQ's scales | gate, up of all experts | down of all experts
//
// In memory: one layer, its changed form, the Hessians of a group of experts, and the two streams.
#pragma once

#include <slimtrim/model/read_ahead.hpp>
#include <slimtrim/pipeline/calibrated_attention.hpp>
#include <slimtrim/pipeline/calibrated_context.hpp>
#include <slimtrim/pipeline/calibrated_feed_forward.hpp>
#include <slimtrim/pipeline/calibrated_fold.hpp>

#include <functional>
#include <optional>
#include <span>
#include <variant>

namespace slimtrim {
inline namespace v0 {

/// Where a stopped pass left off. By default nothing is finished and nobody is told.
struct calibrated_resumption {
  std::function<bool(index_t)> finished{};   ///< whether a layer of the input need not be slimmed again
  weight_source const* changed = nullptr;    ///< finished layers as they are now, by planned numbers
  std::function<bool(module_id)> handed_out{};  ///< whether a module of a finished layer was given to a sink, by planned numbers
  std::function<void(index_t)> on_layer{};   ///< called when all modules of a layer have been handed out
};

namespace detail {

template <host_backend B>
class calibrated_pass {
 public:
  calibrated_pass(calibrated_context<B>& at, calibrated_resumption const& resumption) : at_(at), resumption_(resumption) {}

  void run() {
    index_t const layers = at_.input.config.layer_count();
    read_ahead ahead(*at_.input.weights);
    for (index_t i = 0; i < layers; ++i) {
      bool const skipped = !at_.original && resumption_.finished && i + 1 < layers && resumption_.finished(i + 1);
      if (!skipped) ahead.begin_layer(at_.input.config, i + 1);
      report_progress(at_.options.progress, "slim", i, layers, "layers");
      run_layer(i);
      at_.input.weights->release(i);
    }
    report_progress(at_.options.progress, "slim", layers, layers, "layers");
  }

 private:
  void run_layer(index_t i) {
    auto const target = planned_layer(at_.decided, i);
    std::optional<decoder_layer> layer;
    bool const finished = target && resumption_.finished && resumption_.finished(i);
    if (finished) layer = finished_layer(*target);
    else if (target) layer = load_layer(at_.planned.config, *at_.planned.weights, *target);
    std::optional<decoder_layer> original;
    if (at_.original) original = load_layer(at_.input.config, *at_.input.weights, i);
    bool const attends = layer && layer->attention && !finished;
    bool const feeds = layer && (layer->moe || layer->dense) && !finished;

    if (attends) {
      if (at_.folded) layer_folding<B>(at_, i).attention(*layer->attention, *layer);
      slim_attention_inputs(at_, i, *layer);
    }
    if (original) advance_attention(at_.input.config, *original, *at_.original);
    if (attends) slim_attention_output(at_, i, *layer);
    if (layer) advance_attention(at_.planned.config, *layer, at_.changed);
    if (feeds) {
      if (at_.folded) layer_folding<B>(at_, i).feed_forward(*layer);
      slim_feed_forward_inputs(at_, i, *layer);
    }
    if (original) advance_feed_forward(at_.input.config, *original, *at_.original);
    if (feeds) slim_feed_forward_outputs(at_, i, *layer);
    if (layer) advance_feed_forward(at_.planned.config, *layer, at_.changed);
    if (!at_.options.sequential) copy_rows(at_.original->all(), at_.changed.all());
    if (target && !finished && resumption_.on_layer) resumption_.on_layer(i);
  }

  // A layer of an earlier run. What was changed and stayed dense was in floats when that run went on, so it is again: the
  // streams must be the same to the bit.
  [[nodiscard]] decoder_layer finished_layer(index_t target) const {
    decoder_layer layer = load_layer(at_.planned.config, *resumption_.changed, target);
    auto const restore = [&](weight& w, module_role role, index_t expert = 0) {
      if (!std::holds_alternative<quantized_view<>>(w.view) && resumption_.handed_out({role, target, expert}))
        w = own_weight(expand(w.view));
    };
    auto const restore_swiglu = [&](swiglu_weights& w, module_role gate, module_role up, module_role down, index_t expert = 0) {
      restore(w.gate, gate, expert);
      restore(w.up, up, expert);
      restore(w.down, down, expert);
    };
    if (layer.attention) {
      restore(layer.attention->query, module_role::query);
      restore(layer.attention->key, module_role::key);
      restore(layer.attention->value, module_role::value);
      restore(layer.attention->output, module_role::output);
    }
    if (layer.dense) restore_swiglu(*layer.dense, module_role::dense_gate, module_role::dense_up, module_role::dense_down);
    if (layer.moe) {
      restore(layer.moe->router, module_role::router);
      index_t e = 0;
      for (expert_weights& expert : layer.moe->experts) {
        if (!expert.is_novice()) restore_swiglu(expert.swiglu, module_role::gate, module_role::up, module_role::down, e);
        ++e;
      }
      if (layer.moe->shared)
        restore_swiglu(*layer.moe->shared, module_role::shared_gate, module_role::shared_up, module_role::shared_down);
    }
    return layer;
  }

  void advance_attention(model_config const& config, decoder_layer const& layer, window_streams& streams) {
    streams.for_each_batch(at_.backend, at_.windows_a_batch, [&](index_t, index_t n, matrix_view<float> X) {
      auto const work = at_.workspaces.take();
      auto const s = at_.sequences(n);
      forward_attention(at_.backend, config, layer, 0, X, std::span<token_sequence const>(s), *work);
    });
  }
  void advance_feed_forward(model_config const& config, decoder_layer const& layer, window_streams& streams) {
    streams.for_each_batch(at_.backend, at_.windows_a_batch, [&](index_t, index_t, matrix_view<float> X) {
      auto const work = at_.workspaces.take();
      forward_feed_forward(at_.backend, config, layer, 0, X, *work);
    });
  }

  calibrated_context<B>& at_;
  calibrated_resumption const& resumption_;
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
/// Layers in order; inside a layer AWQ's scales are folded where a step wants them (what stays dense and takes them goes to
/// `folded`), then query, key and value on the normalised stream, output on the attention's context, gate
/// and up of each expert on the tokens routed to it (one Hessian for both), down on its hidden activations. A step with
/// `fit` first re-fits the matrices that write into the stream to what the original stream has more there: output by
/// itself, the down matrices of a layer jointly, or expert by expert where the joint Gram matrix exceeds `joint_bytes`. Every
/// fourth batch of windows judges the ridge.
/// Memory: a layer, its changed form, Hessians within `hessian_bytes`, a joint Gram matrix within `joint_bytes` (four times while it
/// is solved), and one or two streams of windows * S * hidden floats, a third for the fit expert by expert. Byte-identical for any
/// executor, and for any `resumption`. Without `folded` no scales are folded, since nobody would learn of the changed norms. Errors
/// as `slim_matrix`.
template <host_backend B>
void slim_calibrated(B const& backend, opened_model const& input, plan const& p, output_modules const& modules,
                     token_windows const& windows, slimmed_sink const& sink, calibrated_options const& options = {},
                     folded_sink const& folded = {}, calibrated_resumption const& resumption = {}) {
  detail::calibrated_context<B> at(backend, input, p, modules, windows, options, sink, folded);
  detail::calibrated_pass<B>(at, resumption).run();
}

}  // namespace v0
}  // namespace slimtrim
