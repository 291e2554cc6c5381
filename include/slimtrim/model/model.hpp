// A whole model: resident, for evaluation and generation, or streamed layer by layer.
#pragma once

#include <slimtrim/core/progress.hpp>
#include <slimtrim/io/checkpoint.hpp>
#include <slimtrim/model/check_tensors.hpp>
#include <slimtrim/model/decoder_layer.hpp>
#include <slimtrim/model/forward.hpp>
#include <slimtrim/model/plain_weights.hpp>
#include <slimtrim/model/read_ahead.hpp>
#include <slimtrim/model/read_model_config.hpp>

#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// All weights at hand. From a checkpoint they are views into the mapped files, so a model that is not in memory yet is
/// read as it is used.
struct model {
  model_config config;
  model_ends ends;
  std::vector<decoder_layer> layers;
};

/// Every layer of `source`.
[[nodiscard]] inline model load_model(model_config config, weight_source const& source) {
  model result{std::move(config), {}, {}};
  result.ends = load_ends(result.config, source);
  for (index_t i = 0; i < result.config.layer_count(); ++i)
    result.layers.push_back(load_layer(result.config, source, i));
  return result;
}

/// Reads config.json, checks every tensor against it and gives views of the weights, for checkpoints in float types.
/// Throws `input_error`.
[[nodiscard]] inline model load_model(std::shared_ptr<checkpoint const> files) {
  model_config config = read_model_config(files->config(), files->config_place());
  static_cast<void>(check_tensors(config, files->tensors(), files->place()));
  plain_weights const source(std::move(files), config);
  return load_model(std::move(config), source);
}

/// Calls `visit(layer, decoder_layer&)` for every layer in turn, with one layer's weights at a time: what `visit` does
/// not keep is released before the next. Throws what `source`, `visit` and `on_progress` throw.
template <class Visit>
void stream_layers(model_config const& config, weight_source const& source, Visit&& visit,
                   progress_callback const& on_progress = {}) {
  read_ahead ahead(source);
  for (index_t i = 0; i < config.layer_count(); ++i) {
    ahead.begin_layer(config, i + 1);
    report_progress(on_progress, "read", i, config.layer_count(), "layers");
    {
      decoder_layer weights = load_layer(config, source, i);
      visit(i, weights);
    }
    source.release(i);
  }
  report_progress(on_progress, "read", config.layer_count(), config.layer_count(), "layers");
}

/// The residual stream after all layers: X[t], t over the rows of all sequences. tokens: [T], X: [T, hidden]. Caches are
/// advanced. Logits of wanted rows are `final_logits`. Throws `error` when shapes disagree or a cache is full.
template <host_backend B, class Observer = no_observer>
void forward(B const& backend, model const& m, std::span<std::uint32_t const> tokens,
             std::span<token_sequence const> sequences, std::type_identity_t<matrix_view<float>> X,
             forward_workspace& work, Observer&& observer = {}) {
  embed(m.ends, tokens, X);
  for (index_t i = 0; i < m.config.layer_count(); ++i)
    forward_layer(backend, m.config, m.layers[static_cast<std::size_t>(i)], i, X, sequences, work, observer);
  for (token_sequence const& each : sequences)
    if (each.cache != nullptr) each.cache->advance(each.rows);
}

/// The same for one window from position 0, without a cache.
template <host_backend B, class Observer = no_observer>
void forward(B const& backend, model const& m, std::span<std::uint32_t const> tokens,
             std::type_identity_t<matrix_view<float>> X, forward_workspace& work, Observer&& observer = {}) {
  token_sequence const window[1] = {{static_cast<index_t>(tokens.size()), 0, nullptr}};
  forward(backend, m, tokens, std::span<token_sequence const>(window), X, work, observer);
}

}  // namespace v0
}  // namespace slimtrim
