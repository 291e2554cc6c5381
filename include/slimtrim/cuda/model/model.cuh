// A whole model in device memory.
//
// Weights are uploaded once, layer by layer, so the host never holds more than the pages of one; packed ones stay
// packed.
#pragma once

#include <slimtrim/core/progress.hpp>
#include <slimtrim/cuda/embed.cuh>
#include <slimtrim/cuda/model/decoder_layer.cuh>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/model/read_ahead.hpp>
#include <slimtrim/model/weight_source.hpp>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// What stands before and behind the layers.
template <half_precision T>
struct device_ends {
  device_buffer<T> embedding{};  ///< [vocabulary, padded hidden]
  device_buffer<float> final_norm{};
  device_tiles head{};  ///< [padded vocabulary, padded hidden]

  device_ends() = default;
  device_ends(context& on, layer_shape const& shape, model_ends const& from)
      : embedding(upload_rows<T>(on, from.embedding.view, shape.padded_hidden)),
        final_norm(upload_floats(on, from.final_norm)),
        head(upload_tiles<T>(on, from.head.view, from.head.rows())) {}
  [[nodiscard]] index_t bytes() const {
    return static_cast<index_t>(sizeof(T)) * embedding.size() + 4 * final_norm.size() + head.bytes();
  }
};

/// Bytes of device memory that nobody has.
[[nodiscard]] inline index_t free_device_bytes() {
  std::size_t left = 0, all = 0;
  check(cudaMemGetInfo(&left, &all), "cuda: free memory");
  return static_cast<index_t>(left);
}

/// Bytes of device memory in all.
[[nodiscard]] inline index_t device_bytes() {
  std::size_t left = 0, all = 0;
  check(cudaMemGetInfo(&left, &all), "cuda: memory");
  return static_cast<index_t>(all);
}

/// All weights of a model on one device. Activations are T; what is neither 4-bit in groups of 64 times a power of two
/// nor of type T is rounded to T. Movable only; the context outlives it.
template <half_precision T>
struct device_model {
  model_config config{};
  layer_shape shape{};
  device_ends<T> ends{};
  std::vector<device_layer<T>> layers{};
  layer_extents extents{};

  device_model() = default;
  /// Uploads every layer of `source`. Throws `system_failure` when the device's memory does not suffice, saying how far
  /// it went, and what the source and `on_progress` throw.
  device_model(context& on, model_config of, weight_source const& source, progress_callback const& on_progress = {})
      : config(std::move(of)), shape(on, config) {
    index_t i = 0;
    index_t const count = config.layer_count();
    try {
      ends = device_ends<T>(on, shape, load_ends(config, source));
      read_ahead ahead(source);
      for (; i < count; ++i) {
        ahead.begin_layer(config, i + 1);
        report_progress(on_progress, "upload", i, count, "layers");
        layers.emplace_back(on, shape, load_layer(config, source, i));
        extents.include(layers.back());
        on.synchronise();
        source.release(i);
      }
    } catch (system_failure const& failure) {
      throw system_failure("the model does not fit on the device: layer " + std::to_string(i) + " of " +
                           std::to_string(count) + ", " + std::to_string(bytes()) +
                           " bytes of weights so far: " + failure.what());
    }
    report_progress(on_progress, "upload", count, count, "layers");
  }
  [[nodiscard]] index_t bytes() const {
    index_t sum = ends.bytes();
    for (device_layer<T> const& layer : layers) sum += layer.bytes();
    return sum;
  }
  [[nodiscard]] index_t vocabulary() const { return config.vocabulary; }
  /// Columns of a row of logits in memory; those from `vocabulary()` on mean nothing.
  [[nodiscard]] index_t logit_columns() const { return padded_extent(config.vocabulary); }
};

/// Keys and values of all layers for `sequences` texts of up to `capacity` tokens, in T.
template <half_precision T>
class device_cache {
 public:
  device_cache() = default;
  template <class Model>
  device_cache(Model const& m, index_t sequences, index_t capacity) : sequences_(sequences), capacity_(capacity) {
    width_ = m.config.key_value_heads * m.config.head_dim;
    for (auto const& layer : m.layers) {
      index_t const size = layer.attends() ? sequences * capacity * width_ : 0;
      keys_.emplace_back(size);
      values_.emplace_back(size);
    }
  }
  [[nodiscard]] index_t sequences() const { return sequences_; }
  [[nodiscard]] index_t capacity() const { return capacity_; }
  /// The cache of a layer, sequences from `first` on.
  [[nodiscard]] cache_view<T> layer(index_t i, index_t first = 0) const {
    auto const at = static_cast<std::size_t>(i);
    index_t const skip = first * capacity_ * width_;
    if (keys_[at].size() == 0) return {nullptr, nullptr, capacity_, width_};
    return {keys_[at].data() + skip, values_[at].data() + skip, capacity_, width_};
  }
  [[nodiscard]] index_t bytes() const {
    index_t sum = 0;
    for (auto const& each : keys_) sum += 2 * static_cast<index_t>(sizeof(T)) * each.size();
    return sum;
  }

 private:
  index_t sequences_ = 0, capacity_ = 0, width_ = 0;
  std::vector<device_buffer<T>> keys_{}, values_{};
};

/// Takes `n` tokens through all layers: rows of whole sequences, `of.rows` each. The stream in `work` is whole
/// afterwards but for the last addition, which `final_logits` makes. tokens: [n] in device memory. Waits for nothing.
template <half_precision T>
void forward(context& on, device_model<T> const& m, std::int32_t const* tokens, index_t n, sequence_rows of,
             device_cache<T> const& cache, index_t first_sequence, attention_workspace const& attention,
             layer_workspace<T>& work) {
  embed<T>(on, as_const(m.ends.embedding.matrix(m.config.vocabulary, m.shape.padded_hidden)), tokens, work.X(n));
  work.pending = false;
  for (index_t i = 0; i < m.config.layer_count(); ++i) {
    device_layer<T> const& layer = m.layers[static_cast<std::size_t>(i)];
    forward_attention<T>(on, m.shape, layer, n, of, cache.layer(i, first_sequence), attention, work);
    forward_feed_forward<T>(on, m.shape, layer, n, work);
  }
}

/// logits = norm(X) headᵀ for rows first .. first + count - 1 of the `n` that went forward. logits: [count,
/// m.logit_columns()].
template <half_precision T>
void final_logits(context& on, layer_shape const& shape, device_ends<T> const& ends, index_t n, index_t first,
                  index_t count, layer_workspace<T>& work, device_matrix<float> logits) {
  if (first == 0 && count == n) {
    detail::normalise(on, shape, work, n, ends.final_norm);
  } else {
    settle(on, work, n);
    add_and_normalise<T>(on, rows(work.X(n), first, count), {}, as_const(ends.final_norm.view()), shape.epsilon,
                         rows(work.N(n), first, count));
  }
  detail::multiply<T, float>(on, ends.head.view, as_const(rows(work.N(n), first, count)), logits);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
