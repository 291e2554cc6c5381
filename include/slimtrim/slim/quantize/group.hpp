// Which elements share a scale, and how that scale is chosen.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/slim/quantize/grid.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {

/// tensor: one scale; channel: one per output row; group: one per row and run of `size` inputs.
enum class group_kind { tensor, channel, group };

/// Elements that share a scale. Groups run along the input; when `size` does not divide the columns, the last group
/// of each row is shorter (formats that cannot store that refuse it when they write).
struct grouping {
  group_kind kind = group_kind::group;
  index_t size = 128;

  void check() const { expects(kind != group_kind::group || size >= 1, "grouping", "group size must be at least 1"); }
  [[nodiscard]] constexpr index_t block_rows(index_t rows) const {
    return kind == group_kind::tensor && rows > 0 ? rows : 1;
  }
  [[nodiscard]] constexpr index_t block_columns(index_t columns) const {
    return kind == group_kind::group ? size : (columns > 0 ? columns : 1);
  }
  [[nodiscard]] constexpr index_t groups(index_t columns) const { return ceil_div(columns, block_columns(columns)); }
};

/// absmax: the range of the group. mse: the scale with the least squared error, searched. weighted: the same with a
/// weight per column (without weights it is mse).
enum class scale_rule { absmax, mse, weighted };

namespace detail {

struct value_range {
  float lowest = 0;
  float highest = 0;
};

// Float bits in an order of signed integers, so that minima and maxima become integer vectors. Its own inverse.
inline std::int32_t ordered_bits(std::int32_t bits) { return bits ^ ((bits >> 31) & 0x7fffffff); }

// Range of n finite values, zero included.
inline value_range range_of(float const* w, index_t n) {
  std::int32_t low = 0, high = 0;
  for (index_t i = 0; i < n; ++i) {
    std::int32_t const x = ordered_bits(bits_as<std::int32_t>(w[i]));
    low = x < low ? x : low;
    high = x > high ? x : high;
  }
  return {bits_as<float>(ordered_bits(low)), bits_as<float>(ordered_bits(high))};
}

// The largest magnitude as raw float bits: integers compare as the magnitudes do, and NaN and Inf come out on top.
inline std::uint32_t largest_magnitude_bits(float const* w, index_t n) {
  std::uint32_t largest = 0;
  for (index_t i = 0; i < n; ++i) {
    std::uint32_t const magnitude = bits_as<std::uint32_t>(w[i]) & 0x7fffffffU;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

// As uniform_grid::encode; everything by value, since bytes written may alias anything reached by reference.
inline void encode_run(uniform_grid g, float const* w, index_t n, scale_and_zero at, std::uint8_t* codes) {
  float const bottom = static_cast<float>(-g.middle()), top = static_cast<float>(g.last_code() - g.middle());
  float const offset = static_cast<float>(at.zero - g.middle()), scale = at.scale;
  std::uint32_t const middle = static_cast<std::uint32_t>(g.middle());
  for (index_t i = 0; i < n; ++i) {
    float x = w[i] / scale + offset;
    x = x < bottom ? bottom : x;
    x = x > top ? top : x;
    codes[i] = static_cast<std::uint8_t>(bits_as<std::uint32_t>(x + 12582912.0F) + middle);
  }
}

}  // namespace detail

}  // namespace v0
}  // namespace slimtrim
