// Keys and values of the tokens that a sequence has seen, so that decoding costs one row per token.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/executor.hpp>
#include <slimtrim/model/kv_view.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The cache of one sequence: keys (rotated) and values of every layer with attention, as kv_view says. A layer takes
/// 8 bytes * capacity * key_value_heads * head_dim, half of that with float16, and with int8 a fourth and 8 bytes for
/// each position and head.
class kv_cache {
 public:
  kv_cache(model_config const& config, index_t capacity, kv_precision precision = kv_precision::floating)
      : capacity_(capacity) {
    expects(capacity >= 0, "kv_cache", "capacity: expected a count >= 0");
    for (layer_config const& layer : config.layers)
      layers_.emplace_back(layer.attention ? capacity : 0, config.key_value_heads, config.head_dim, precision);
  }

  [[nodiscard]] index_t capacity() const { return capacity_; }
  /// Tokens stored so far, in every layer.
  [[nodiscard]] index_t length() const { return length_; }
  /// The next `count` tokens have passed all layers. Throws `error` when the cache is full.
  void advance(index_t count) {
    require_room(length_, count);
    length_ += count;
  }
  /// Forgets tokens from position `length` on.
  void truncate(index_t length) {
    expects(length >= 0 && length <= length_, "kv_cache", "truncate: expected a length up to the present one");
    length_ = length;
  }

  /// Stores the keys and values of positions first, first + 1, ... of a layer. K, V: [count, key_value_heads *
  /// head_dim]. Throws `error` when the cache is full, `numeric_error` on NaN and infinity with int8.
  void store(executor* run_on, index_t layer, index_t first, matrix_view<float const> K, matrix_view<float const> V) {
    index_t const count = K.extent(0);
    require_room(first, count);
    layer_memory& memory = layers_[static_cast<std::size_t>(layer)];
    expects_equal(K.extent(1), memory.view.heads * memory.view.head_dim, "kv_cache", "columns of the keys");
    expects(V.extent(0) == count && V.extent(1) == K.extent(1), "kv_cache", "shape of the values");
    constexpr index_t rows_a_piece = kv_view::positions;
    parallel_for(run_on, ceil_div(count, rows_a_piece), [&](index_t piece) {
      index_t const last = std::min(count, (piece + 1) * rows_a_piece);
      for (index_t t = piece * rows_a_piece; t < last; ++t) memory.store(first + t, row(K, t), row(V, t));
    });
  }

  /// Positions 0 .. count - 1 of a layer.
  [[nodiscard]] kv_view view(index_t layer, index_t count) const {
    require_room(0, count);
    kv_view result = layers_[static_cast<std::size_t>(layer)].view;
    result.rows = count;
    return result;
  }

 private:
  struct layer_memory {
    kv_view view;
    buffer<std::byte> keys, values;
    buffer<float> key_scales, value_scales;

    layer_memory(index_t capacity, index_t heads, index_t head_dim, kv_precision precision) {
      index_t const whole = round_up(capacity, kv_view::positions), size = bits_of(precision) / 8;
      keys = buffer<std::byte>(whole * heads * head_dim * size);
      values = buffer<std::byte>(whole * heads * head_dim * size);
      if (precision == kv_precision::int8) {
        key_scales = buffer<float>(whole * heads);
        value_scales = buffer<float>(whole * heads);
      }
      view.precision = precision;
      view.heads = heads, view.head_dim = head_dim, view.capacity = whole;
      view.keys = keys.data(), view.values = values.data();
      view.key_scales = key_scales.data(), view.value_scales = value_scales.data();
    }

    void store(index_t position, vector_view<float const> K, vector_view<float const> V) {
      index_t const dim = view.head_dim;
      for (index_t head = 0; head < view.heads; ++head) {
        auto const key = [&](index_t d) { return K(head * dim + d); };
        auto const value = [&](index_t d) { return V(head * dim + d); };
        auto const key_at = [&](index_t d) { return view.key_at(position, head, d); };
        auto const value_at = [&](index_t d) { return view.value_at(position, head, d); };
        float* const key_scale = key_scales.empty() ? nullptr : &key_scales[view.scale_at(position, head)];
        float* const value_scale = value_scales.empty() ? nullptr : &value_scales[view.scale_at(position, head)];
        store_head(position, key, keys.data(), key_at, key_scale);
        store_head(position, value, values.data(), value_at, value_scale);
      }
    }

    template <class Element, class Place>
    void store_head(index_t position, Element&& element, std::byte* memory, Place&& place, float* scale) const {
      switch (view.precision) {
        case kv_precision::floating:
          for (index_t d = 0; d < view.head_dim; ++d) reinterpret_cast<float*>(memory)[place(d)] = element(d);
          return;
        case kv_precision::float16:
          for (index_t d = 0; d < view.head_dim; ++d)
            reinterpret_cast<float16*>(memory)[place(d)] = float16(std::clamp(element(d), -65504.0F, 65504.0F));
          return;
        case kv_precision::int8: {
          float largest = 0;
          for (index_t d = 0; d < view.head_dim; ++d) {
            float const size = std::fabs(element(d));
            if (!std::isfinite(size))
              throw numeric_error("kv_cache: position " + std::to_string(position) + ": expected finite numbers");
            largest = std::max(largest, size);
          }
          // Where 127 over the largest leaves the range of float, the head counts as zero.
          float const inverse = largest < 0x1p-100F ? 0.0F : 127.0F / largest;
          *scale = largest < 0x1p-100F ? 0.0F : largest / 127.0F;
          for (index_t d = 0; d < view.head_dim; ++d)
            reinterpret_cast<std::int8_t*>(memory)[place(d)] =
                static_cast<std::int8_t>(std::nearbyint(element(d) * inverse));
          return;
        }
      }
    }
  };

  void require_room(index_t first, index_t count) const {
    if (first < 0 || count < 0 || count > capacity_ - first)
      throw error("kv_cache: full: " + std::to_string(count) + " tokens at position " + std::to_string(first) +
                  " do not fit a capacity of " + std::to_string(capacity_));
  }

  index_t capacity_;
  index_t length_ = 0;
  std::vector<layer_memory> layers_;
};

}  // namespace v0
}  // namespace slimtrim
