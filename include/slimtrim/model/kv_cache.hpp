// Keys and values of the tokens that a sequence has seen, in float, so that decoding costs one row per token.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The cache of one sequence: for every layer with attention, keys (rotated) and values
/// [capacity, key_value_heads * head_dim]. 8 * capacity * key_value_heads * head_dim bytes a layer.
class kv_cache {
 public:
  kv_cache(model_config const& config, index_t capacity) : capacity_(capacity) {
    expects(capacity >= 0, "kv_cache", "capacity: expected a count >= 0");
    index_t const width = config.key_value_heads * config.head_dim;
    for (layer_config const& layer : config.layers) {
      keys_.emplace_back(layer.attention ? capacity : 0, width);
      values_.emplace_back(layer.attention ? capacity : 0, width);
    }
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

  /// Rows first .. first + count - 1 of a layer's keys or values, to be written or read.
  [[nodiscard]] matrix_view<float> keys(index_t layer, index_t first, index_t count) {
    require_room(first, count);
    return rows(keys_[static_cast<std::size_t>(layer)].view(), first, count);
  }
  [[nodiscard]] matrix_view<float> values(index_t layer, index_t first, index_t count) {
    require_room(first, count);
    return rows(values_[static_cast<std::size_t>(layer)].view(), first, count);
  }

 private:
  void require_room(index_t first, index_t count) const {
    if (first < 0 || count < 0 || count > capacity_ - first)
      throw error("kv_cache: full: " + std::to_string(count) + " tokens at position " + std::to_string(first) +
                  " do not fit a capacity of " + std::to_string(capacity_));
  }

  index_t capacity_;
  index_t length_ = 0;
  std::vector<tensor<float, 2>> keys_, values_;
};

}  // namespace v0
}  // namespace slimtrim
