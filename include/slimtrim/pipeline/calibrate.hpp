// One forward pass over the calibration windows that fills every statistic, layer by layer.
#pragma once

#include <slimtrim/core/progress.hpp>
#include <slimtrim/model/read_ahead.hpp>
#include <slimtrim/pipeline/model_statistics.hpp>
#include <slimtrim/pipeline/statistics_observer.hpp>
#include <slimtrim/pipeline/window_streams.hpp>

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct calibrate_options {
  statistics_tables tables{};
  std::uint64_t activation_bytes = std::uint64_t{1} << 29;  ///< streams of the windows that go together
  progress_callback progress{};
};

namespace detail {

// Observers, lent to one window at a time; how many there are never matters, their sums are exact.
template <host_backend B>
class observer_pool {
 public:
  observer_pool(B const& backend, layer_statistics_options const& options, bool scaled_inputs)
      : backend_(backend), options_(options), scaled_inputs_(scaled_inputs) {}

  class lease {
   public:
    lease(observer_pool& pool, std::unique_ptr<statistics_observer<B>> observer)
        : pool_(&pool), observer_(std::move(observer)) {}
    lease(lease const&) = delete;
    lease& operator=(lease const&) = delete;
    ~lease() {
      std::lock_guard const lock(pool_->mutex_);
      pool_->free_.push_back(std::move(observer_));
    }
    void block_input(index_t l, matrix_view<float const> X) { observer_->block_input(l, X); }
    void attention_residual(index_t l, matrix_view<float const> X) { observer_->attention_residual(l, X); }
    void feed_forward_input(index_t l, matrix_view<float const> N) { observer_->feed_forward_input(l, N); }
    void router_result(index_t l, routing_result const& r) { observer_->router_result(l, r); }
    void expert_hidden(index_t l, expert_batch const& b, matrix_view<float const> H) { observer_->expert_hidden(l, b, H); }
    void expert_output(index_t l, expert_batch const& b, matrix_view<float const> O) { observer_->expert_output(l, b, O); }
    void feed_forward_output(index_t l, matrix_view<float const> Y) { observer_->feed_forward_output(l, Y); }
    void block_output(index_t l, matrix_view<float const> X) { observer_->block_output(l, X); }
    void add(layer_sums const& sums) { observer_->add(sums); }

   private:
    observer_pool* pool_;
    std::unique_ptr<statistics_observer<B>> observer_;
  };

  [[nodiscard]] lease take() {
    std::unique_ptr<statistics_observer<B>> observer;
    {
      std::lock_guard const lock(mutex_);
      if (!free_.empty()) {
        observer = std::move(free_.back());
        free_.pop_back();
      }
    }
    if (!observer) observer = std::make_unique<statistics_observer<B>>(backend_, options_, scaled_inputs_);
    return lease(*this, std::move(observer));
  }
  void merge_into(layer_statistics& total) {
    for (auto const& each : free_) total.merge(each->statistics());
  }

 private:
  B const& backend_;
  layer_statistics_options options_;
  bool scaled_inputs_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<statistics_observer<B>>> free_;
};

// Takes a window through a layer and adds it to what `observers` sum: on an accelerator as a whole, where one is lent that does so.
template <host_backend B>
void observe_window(B const& backend, model_config const& config, decoder_layer const& weights, index_t layer,
                    matrix_view<float> X, layer_statistics_options const& wanted, observer_pool<B>& observers,
                    workspace_pool& workspaces) {
  auto observer = observers.take();
  if constexpr (has_accelerator<B>) {
    token_sequence const whole[1] = {{X.extent(0), 0, nullptr}};
    check_sequences(whole, X.extent(0), config.sliding_window);
    layer_sums sums;
    if (backend.lent() != nullptr && backend.lent()->statistics(config, weights, X, wanted, sums)) return observer.add(sums);
  }
  auto const work = workspaces.take();
  forward_layer(backend, config, weights, layer, X, *work, observer);
}

}  // namespace detail

/// Runs the windows through the model and collects all statistics of kind `statistics`.
///
/// One layer of weights and the streams of a chunk of windows are in memory; statistics take memory that does not grow
/// with tokens. Only routed tokens go through an expert. The result is the same, bit for bit, for any executor, chunk
/// size and order of windows.
template <host_backend B>
[[nodiscard]] model_statistics calibrate(B const& backend, opened_model const& model, token_windows const& windows,
                                         calibrate_options const& options = {}) {
  model_config const& config = model.config;
  model_statistics result = empty_statistics(config, fingerprint_of(*model.files), windows.sequence, options.tables);
  for (index_t w = 0; w < windows.count(); ++w) result.windows.push_back(fingerprint_of(windows, w, 1));
  std::sort(result.windows.begin(), result.windows.end());

  model_ends const ends = load_ends(config, *model.weights);
  workspace_pool workspaces;
  read_ahead ahead(*model.weights);
  std::uint64_t const streams_held = options.tables.blocks ? static_cast<std::uint64_t>(config.layer_count()) + 1 : 1;
  index_t const chunk = windows_within(options.activation_bytes / streams_held, windows.sequence, config.hidden);
  index_t const all_tokens = windows.count() * windows.sequence;
  for (index_t first = 0; first < windows.count(); first += chunk) {
    index_t const count = std::min(chunk, windows.count() - first);
    window_streams streams(ends, windows, first, count);
    streams.lend_to(backend);
    std::vector<window_streams> history;
    for (index_t i = 0; i < config.layer_count(); ++i) {
      ahead.begin_layer(config, i + 1);
      report_progress(options.progress, "calibrate", tokens_done(windows, first, count, i, config.layer_count()), all_tokens, "tokens");
      if (options.tables.blocks) history.push_back(streams.clone());
      layer_statistics_options shape;
      shape.experts = config.layer(i).experts;
      shape.hidden = config.hidden;
      shape.intermediate = config.layer(i).intermediate;
      shape.outputs = options.tables.outputs;
      shape.neurons = options.tables.neurons;
      decoder_layer const weights = load_layer(config, *model.weights, i);
      detail::observer_pool<B> observers(backend, shape, weights.moe && weights.moe->rule.weight_scales_input);
      streams.for_each_batch(backend, 1, [&](index_t, index_t, matrix_view<float> X) {
        detail::observe_window(backend, config, weights, i, X, shape, observers, workspaces);
      });
      observers.merge_into(result.layers[static_cast<std::size_t>(i)]);
      model.weights->release(i);
    }
    if (options.tables.blocks) {
      history.push_back(streams.clone());
      for (index_t w = 0; w < count; ++w) {
        std::vector<matrix_view<float const>> window;
        for (window_streams& each : history) window.push_back(each.window(w));
        result.blocks->add(backend, window);
        result.blocks->commit_window();
      }
    }
  }
  report_progress(options.progress, "calibrate", all_tokens, all_tokens, "tokens");
  return result;
}

}  // namespace v0
}  // namespace slimtrim
