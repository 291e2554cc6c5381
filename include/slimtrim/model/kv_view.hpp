// What a cache holds of one layer, as attention reads it.
#pragma once

#include <slimtrim/core/float16.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {

/// How a cache stores keys and values. `float16`: rounded to nearest, |x| <= 65504 (a larger one becomes that).
/// `int8`: codes in -127 .. 127 times one scale for each position and head, max |x| / 127, so that every element is
/// off by at most max |x| / 254 (1 + 2^-20).
enum class kv_precision { floating, float16, int8 };

/// Bits of one element.
[[nodiscard]] constexpr index_t bits_of(kv_precision precision) {
  return precision == kv_precision::floating ? 32 : precision == kv_precision::float16 ? 16 : 8;
}

/// Keys and values of `rows` positions, head after head with room for `capacity` positions. Sixteen positions of a key lie
/// side by side, so that a query meets as many keys at once; a value lies in one piece, because it is scaled and added.
struct kv_view {
  static constexpr index_t positions = 16;

  kv_precision precision = kv_precision::floating;
  index_t rows = 0;
  index_t heads = 0;
  index_t head_dim = 0;
  index_t capacity = 0;                 // a multiple of 16
  void const* keys = nullptr;           // [heads, capacity / 16, head_dim, 16] of float, float16 or int8
  void const* values = nullptr;         // [heads, capacity, head_dim] of the same
  float const* key_scales = nullptr;    // [heads, capacity]; int8 only
  float const* value_scales = nullptr;  // the same

  [[nodiscard]] constexpr index_t key_at(index_t row, index_t head, index_t d) const {
    return (head * capacity + row / positions * positions) * head_dim + d * positions + row % positions;
  }
  [[nodiscard]] constexpr index_t value_at(index_t row, index_t head, index_t d) const {
    return (head * capacity + row) * head_dim + d;
  }
  [[nodiscard]] constexpr index_t scale_at(index_t row, index_t head) const { return head * capacity + row; }

  /// Elements as floats. Exact conversions of what is stored.
  [[nodiscard]] float key(index_t row, index_t head, index_t d) const {
    float const scale = precision == kv_precision::int8 ? key_scales[scale_at(row, head)] : 1.0F;
    return element(keys, key_at(row, head, d), scale);
  }
  [[nodiscard]] float value(index_t row, index_t head, index_t d) const {
    float const scale = precision == kv_precision::int8 ? value_scales[scale_at(row, head)] : 1.0F;
    return element(values, value_at(row, head, d), scale);
  }

  /// One head of rows first, first + 1, ...: K, V: [count, head_dim].
  void expand(index_t head, index_t first, matrix_view<float> K, matrix_view<float> V) const {
    for (index_t j = 0; j < K.extent(0); ++j)
      for (index_t d = 0; d < head_dim; ++d) {
        K(j, d) = key(first + j, head, d);
        V(j, d) = value(first + j, head, d);
      }
  }

 private:
  [[nodiscard]] float element(void const* from, index_t at, float scale) const {
    switch (precision) {
      case kv_precision::floating:
        return static_cast<float const*>(from)[at];
      case kv_precision::float16:
        return static_cast<float>(static_cast<float16 const*>(from)[at]);
      case kv_precision::int8:
        return static_cast<float>(static_cast<std::int8_t const*>(from)[at]) * scale;
    }
    return 0;
  }
};

}  // namespace v0
}  // namespace slimtrim
