// The residual streams of many windows, taken through a model one layer at a time.
//
// Layers are the outer loop, so a layer's weights are read once for all windows of a chunk and the model is never in
// memory. Windows are independent: batches of a fixed number of tokens run on the backend's executor, and nothing
// depends on how many run at once.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/model/accelerator.hpp>
#include <slimtrim/model/forward.hpp>
#include <slimtrim/pipeline/data.hpp>
#include <slimtrim/tensor/buffer.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Forward workspaces, lent to one piece of work at a time.
class workspace_pool {
 public:
  class lease {
   public:
    lease(workspace_pool& pool, std::unique_ptr<forward_workspace> work) : pool_(&pool), work_(std::move(work)) {}
    lease(lease const&) = delete;
    lease& operator=(lease const&) = delete;
    ~lease() { pool_->give_back(std::move(work_)); }
    [[nodiscard]] forward_workspace& operator*() const { return *work_; }

   private:
    workspace_pool* pool_;
    std::unique_ptr<forward_workspace> work_;
  };

  [[nodiscard]] lease take() {
    std::unique_ptr<forward_workspace> work;
    {
      std::lock_guard const lock(mutex_);
      if (!free_.empty()) {
        work = std::move(free_.back());
        free_.pop_back();
      }
    }
    if (!work) work = std::make_unique<forward_workspace>();
    return lease(*this, std::move(work));
  }

 private:
  void give_back(std::unique_ptr<forward_workspace> work) {
    std::lock_guard const lock(mutex_);
    free_.push_back(std::move(work));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<forward_workspace>> free_;
};

/// Tokens that one piece of work takes through a layer together (whole windows, at least one).
inline constexpr index_t stream_batch_tokens = 1024;

/// The residual streams of windows [first, first + count) of a set: one [count * S, hidden] matrix.
class window_streams {
 public:
  /// Embeds the windows. Memory count * S * hidden floats.
  window_streams(model_ends const& ends, token_windows const& windows, index_t first, index_t count)
      : sequence_(windows.sequence), count_(count), stream_(count * windows.sequence, ends.embedding.columns()) {
    for (index_t w = 0; w < count; ++w) embed(ends, windows[first + w], window(w));
  }

  window_streams(window_streams&&) = default;
  window_streams& operator=(window_streams&&) = delete;

  [[nodiscard]] index_t count() const { return count_; }
  [[nodiscard]] index_t sequence() const { return sequence_; }
  /// The stream of one window: [S, hidden].
  [[nodiscard]] matrix_view<float> window(index_t w) { return rows(stream_.view(), w * sequence_, sequence_); }
  [[nodiscard]] matrix_view<float> all() { return stream_.view(); }

  /// Tells the backend's accelerator, where it has one, that it will meet these rows many times.
  template <host_backend B>
  void lend_to(B const& backend) {
    if constexpr (has_accelerator<B>)
      if (backend.lent() != nullptr)
        fixed_ = backend.lent()->fix_pages(std::as_writable_bytes(std::span(stream_.view().data, static_cast<std::size_t>(stream_.view().size()))));
  }

  /// A deep copy, lent to nobody.
  [[nodiscard]] window_streams clone() const { return window_streams(sequence_, count_, stream_.clone()); }

  /// Calls `piece(first_window, windows, X)` for batches of `windows_a_batch` windows, X: their rows; in parallel.
  template <host_backend B, class Piece>
  void for_each_batch(B const& backend, index_t windows_a_batch, Piece&& piece) {
    index_t const batch = std::max<index_t>(windows_a_batch, 1);
    parallel_for(backend.run_on(), ceil_div(count_, batch), [&](index_t i) {
      index_t const first = i * batch, n = std::min(batch, count_ - first);
      piece(first, n, rows(stream_.view(), first * sequence_, n * sequence_));
    });
  }

  /// Takes all windows through one layer, several together.
  template <host_backend B>
  void run_layer(B const& backend, model_config const& config, decoder_layer const& weights, index_t layer,
                 workspace_pool& workspaces) {
    for_each_batch(backend, stream_batch_tokens / sequence_, [&](index_t, index_t n, matrix_view<float> X) {
      auto const work = workspaces.take();
      std::vector<token_sequence> const sequences(static_cast<std::size_t>(n), token_sequence{sequence_, 0, nullptr});
      forward_layer(backend, config, weights, layer, X, std::span<token_sequence const>(sequences), *work);
    });
  }

  /// The same window by window, each with the observer that `observer_of(window)` returns by reference or value.
  template <host_backend B, class ObserverOf>
  void run_layer_observed(B const& backend, model_config const& config, decoder_layer const& weights, index_t layer,
                          workspace_pool& workspaces, ObserverOf&& observer_of) {
    for_each_batch(backend, 1, [&](index_t w, index_t, matrix_view<float> X) {
      auto const work = workspaces.take();
      auto&& observer = observer_of(w);
      forward_layer(backend, config, weights, layer, X, *work, observer);
    });
  }

 private:
  window_streams(index_t sequence, index_t count, tensor<float, 2> stream)
      : sequence_(sequence), count_(count), stream_(std::move(stream)) {}

  index_t sequence_;
  index_t count_;
  tensor<float, 2> stream_;
  std::shared_ptr<void> fixed_{};  // ends before the stream does
};

/// How far a pass over windows is, in tokens: those before window `first` have gone through all `layers`, `count` windows from there
/// through the first `layer` of them.
[[nodiscard]] inline index_t tokens_done(token_windows const& windows, index_t first, index_t count, index_t layer, index_t layers) {
  return windows.sequence * first + windows.sequence * count * layer / layers;
}

/// How many windows go through the model together so that their streams take at most `bytes`; at least one.
[[nodiscard]] inline index_t windows_within(std::uint64_t bytes, index_t sequence, index_t hidden) {
  auto const one = static_cast<std::uint64_t>(sequence) * static_cast<std::uint64_t>(hidden) * sizeof(float);
  return static_cast<index_t>(std::max<std::uint64_t>(1, bytes / std::max<std::uint64_t>(one, 1)));
}

}  // namespace v0
}  // namespace slimtrim
