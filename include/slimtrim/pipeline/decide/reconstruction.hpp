// The second pass of the criterion `reconstruction`: what each layer's output loses without some of its experts.
#pragma once

#include <slimtrim/core/progress.hpp>
#include <slimtrim/importance/reconstruction.hpp>
#include <slimtrim/importance/reconstruction_tokens.hpp>
#include <slimtrim/model/read_ahead.hpp>
#include <slimtrim/pipeline/open_model.hpp>
#include <slimtrim/pipeline/window_streams.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// So many evenly spaced windows that what is kept of the tokens of one layer takes at most `bytes`; all when they fit.
[[nodiscard]] inline token_windows windows_for_reconstruction(model_config const& config, token_windows const& all,
                                                              std::uint64_t bytes) {
  index_t most = 1;
  for (layer_config const& layer : config.layers) most = std::max(most, reconstruction_tokens::floats_a_token(layer.experts));
  auto const a_window = static_cast<std::uint64_t>(most * all.sequence) * sizeof(float);
  auto const fit = static_cast<index_t>(std::max<std::uint64_t>(bytes / a_window, 1));
  if (fit >= all.count()) return all;
  token_windows some{all.sequence, {}, all.source};
  for (index_t k = 0; k < fit; ++k) {
    auto const window = all[k * all.count() / fit];
    some.tokens.insert(some.tokens.end(), window.begin(), window.end());
  }
  return some;
}

/// Runs the windows through `model` and calls `visit(layer, reconstruction_tokens&, unit)` for each MoE layer in order;
/// unit: mean |x'|^2 of the stream that the layer's output joins.
///
/// Every token goes through every expert, which a forward pass does not do: cost experts / top_k times the experts' share of one.
/// Memory: one layer, the streams, and what `reconstruction_tokens` keeps of one layer. Deterministic for any executor.
template <host_backend B, class Visit>
void collect_reconstruction(B const& backend, opened_model const& model, token_windows const& windows,
                            progress_callback const& on_progress, Visit&& visit) {
  model_config const& config = model.config;
  model_ends const ends = load_ends(config, *model.weights);
  window_streams streams(ends, windows, 0, windows.count());
  workspace_pool workspaces;
  index_t const batch = std::max<index_t>(stream_batch_tokens / windows.sequence, 1);
  read_ahead ahead(*model.weights);
  for (index_t i = 0; i < config.layer_count(); ++i) {
    ahead.begin_layer(config, i + 1);
    report_progress(on_progress, "reconstruct", i, config.layer_count(), "layers");
    decoder_layer const layer = load_layer(config, *model.weights, i);
    auto const work = workspaces.take();
    std::optional<reconstruction_tokens> tokens;
    if (layer.moe)
      tokens.emplace(static_cast<index_t>(layer.moe->experts.size()), layer.moe->rule, layer.moe->selection_bias);
    double square = 0;
    for (index_t first = 0; first < streams.count(); first += batch) {
      index_t const count = std::min(batch, streams.count() - first), n = count * streams.sequence();
      auto const X = rows(streams.all(), first * streams.sequence(), n);
      std::vector<token_sequence> const sequences(static_cast<std::size_t>(count), token_sequence{streams.sequence(), 0, nullptr});
      forward_attention(backend, config, layer, i, X, std::span<token_sequence const>(sequences), *work);
      if (tokens) {
        for (index_t t = 0; t < n; ++t) square += static_cast<double>(backend.dot(row(as_const(X), t), row(as_const(X), t)));
        tensor<float, 2> N(n, X.extent(1)), logits(n, tokens->experts());
        rms_norm(backend, as_const(X), layer.feed_forward_norm, config.rms_epsilon, N.view());
        product(backend, as_const(N.view()), layer.moe->router.view, logits.view());
        std::vector<tensor<float, 2>> outputs;
        std::vector<matrix_view<float const>> views;
        for (expert_weights const& expert : layer.moe->experts) {
          outputs.emplace_back(n, X.extent(1));
          if (expert.is_novice()) {
            for (index_t t = 0; t < n; ++t) std::copy(expert.novice.begin(), expert.novice.end(), &outputs.back()(t, 0));
          } else {
            swiglu(backend, as_const(N.view()), expert.swiglu, outputs.back().view(), *work, [](matrix_view<float const>) {});
          }
        }
        for (auto const& each : outputs) views.push_back(each.view());
        tokens->add(backend, as_const(logits.view()), views);
      }
      forward_feed_forward(backend, config, layer, i, X, *work);
    }
    model.weights->release(i);
    if (tokens) visit(i, *tokens, square / static_cast<double>(std::max<index_t>(tokens->tokens(), 1)));
  }
  report_progress(on_progress, "reconstruct", config.layer_count(), config.layer_count(), "layers");
}

}  // namespace v0
}  // namespace slimtrim
