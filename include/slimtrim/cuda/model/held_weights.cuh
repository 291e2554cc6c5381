// Weights that stay on the device between calls: halves of layers, the last ones used, and the heads of two models.
//
// Weights are told apart by their storage, which is kept alive here, so that no other may take its place.
#pragma once

#include <slimtrim/cuda/model/device_layer.cuh>
#include <slimtrim/cuda/model/same_layer.hpp>

#include <algorithm>
#include <cstddef>
#include <list>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// One half of a layer, of a model of this shape.
template <half_precision T>
struct held_layer {
  decoder_layer source;  // keeps what identifies it alive
  layer_shape const* shape;
  device_layer<T> layer;
};

/// Last norm and head of a model of this shape.
struct held_head {
  weight source;
  std::vector<float> source_norm;
  layer_shape const* shape;
  device_buffer<float> norm;
  device_tiles head;
};

/// Uploads what it has not, and drops what was used longest ago. What it returns is valid until the next call but one for layers,
/// so both halves of a layer can be held, and until the next for heads. `on` outlives this. Not for two threads at a time.
template <half_precision T>
class held_weights {
 public:
  /// Up to `most_halves` halves of layers, at least two.
  held_weights(context& on, std::size_t most_halves) : on_(on), most_halves_(std::max<std::size_t>(most_halves, 2)) {}

  /// Valid as long as this.
  [[nodiscard]] layer_shape const& shape_of(model_config const& config) {
    for (known_shape const& each : shapes_)
      if (detail::same_shape(each.config, config)) return each.shape;
    shapes_.push_back({config, layer_shape(on_, config)});
    return shapes_.back().shape;
  }
  /// The first half, or null where attention was dropped.
  [[nodiscard]] held_layer<T>* attention(model_config const& config, decoder_layer const& weights) {
    if (!weights.attention) return nullptr;
    decoder_layer half;
    half.attention = weights.attention;
    return &find(config, std::move(half));
  }
  /// The second half, or null where it was dropped.
  [[nodiscard]] held_layer<T>* feed_forward(model_config const& config, decoder_layer const& weights) {
    if (!weights.dense && !weights.moe) return nullptr;
    decoder_layer half = weights;
    half.attention.reset();
    return &find(config, std::move(half));
  }
  [[nodiscard]] held_head& head(model_config const& config, model_ends const& ends) {
    layer_shape const& shape = shape_of(config);
    for (held_head& each : heads_)
      if (each.shape == &shape && detail::same_weight(each.source, ends.head) && each.source_norm == ends.final_norm)
        return each;
    while (heads_.size() >= 2) heads_.pop_front();  // a model and its base
    heads_.push_back({ends.head, ends.final_norm, &shape, upload_floats(on_, ends.final_norm),
                      upload_tiles<T>(on_, ends.head.view, ends.head.rows())});
    return heads_.back();
  }

 private:
  struct known_shape {
    model_config config;
    layer_shape shape;
  };

  held_layer<T>& find(model_config const& config, decoder_layer half) {
    layer_shape const& shape = shape_of(config);
    for (auto at = layers_.begin(); at != layers_.end(); ++at)
      if (at->shape == &shape && detail::same_layer(at->source, half)) {
        layers_.splice(layers_.begin(), layers_, at);
        return layers_.front();
      }
    while (layers_.size() >= most_halves_) layers_.pop_back();
    device_layer<T> uploaded(on_, shape, half);
    layers_.push_front({std::move(half), &shape, std::move(uploaded)});
    return layers_.front();
  }

  context& on_;
  std::size_t most_halves_;
  std::list<known_shape> shapes_{};
  std::list<held_layer<T>> layers_{};
  std::list<held_head> heads_{};
};

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
