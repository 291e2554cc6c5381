// How far many changed models lie from one base, on the same windows: the base runs once.
#pragma once

#include <slimtrim/model/read_ahead.hpp>
#include <slimtrim/pipeline/evaluate.hpp>

#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Mean KL(base || model) in nats per scored position, as `evaluate` measures it.
///
/// Holds the base's residual stream before every layer and behind the last where they fit `bytes`, so that a model whose first
/// layers are the base's starts behind them; else the last one, else nothing: then every call runs the base again. The windows
/// must outlive the meter. Deterministic for any executor.
template <host_backend B>
class kl_meter {
 public:
  kl_meter(B const& backend, opened_model const& base, token_windows const& windows,
           std::uint64_t bytes = std::uint64_t{1} << 29)
      : backend_(backend), base_(base), windows_(windows) {
    std::uint64_t const one = static_cast<std::uint64_t>(windows.count()) * static_cast<std::uint64_t>(windows.sequence) *
                              static_cast<std::uint64_t>(base.config.hidden) * sizeof(float);
    if (2 * one > bytes) return;
    bool const all = one * (static_cast<std::uint64_t>(base.config.layer_count()) + 2) <= bytes;
    ends_.emplace(load_ends(base.config, *base.weights));
    window_streams streams(*ends_, windows, 0, windows.count());
    for (index_t i = 0; i < base.config.layer_count(); ++i) {
      if (all) before_.push_back(streams.clone());
      run_layer(base, i, streams);
    }
    last_.emplace(std::move(streams));
  }

  /// `same_layers`: so many layers at the beginning are the base's, in the same places; the embedding too when above 0.
  [[nodiscard]] double operator()(opened_model const& model, index_t same_layers = 0) {
    ++evaluations_;
    if (!last_) return evaluate(backend_, model, &base_, windows_, {}).kl_mean;
    model_ends const ends = load_ends(model.config, *model.weights);
    index_t first = before_.empty() ? 0 : std::min<index_t>(same_layers, static_cast<index_t>(before_.size()) - 1);
    first = std::min(first, model.config.layer_count());
    window_streams streams = first > 0 ? before_[static_cast<std::size_t>(first)].clone()
                                       : window_streams(ends, windows_, 0, windows_.count());
    read_ahead ahead(*model.weights);
    for (index_t i = first; i < model.config.layer_count(); ++i) {
      ahead.begin_layer(model.config, i + 1);
      run_layer(model, i, streams);
    }
    double sum = 0;
    index_t tokens = 0;
    for (window_scores const& each : detail::score_streams(backend_, model.config, ends, streams, &base_.config, &*ends_,
                                                           &*last_, windows_, 0, workspaces_)) {
      for (float const kl : each.kl) sum += static_cast<double>(kl);
      tokens += each.tokens;
    }
    if (!std::isfinite(sum)) throw numeric_error("kl_meter: a divergence is not finite: the model's weights or activations overflow");
    return sum / static_cast<double>(std::max<index_t>(tokens, 1));
  }

  [[nodiscard]] index_t evaluations() const { return evaluations_; }

 private:
  void run_layer(opened_model const& model, index_t i, window_streams& streams) {
    decoder_layer const weights = load_layer(model.config, *model.weights, i);
    streams.run_layer(backend_, model.config, weights, i, workspaces_);
    model.weights->release(i);
  }

  B const& backend_;
  opened_model const& base_;
  token_windows const& windows_;
  workspace_pool workspaces_{};
  std::optional<model_ends> ends_{};
  std::vector<window_streams> before_{};
  std::optional<window_streams> last_{};
  index_t evaluations_ = 0;
};

}  // namespace v0
}  // namespace slimtrim
