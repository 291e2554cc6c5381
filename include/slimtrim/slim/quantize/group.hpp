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

struct fit_sums {
  float error = 0;       // sum of weight * (w - q * scale)^2
  float value_code = 0;  // sum of weight * w * q
  float code_code = 0;   // sum of weight * q^2
};

// Squared error of one candidate and the sums of its least-squares scale, q = code - zero.
template <bool Weighted>
fit_sums try_scale(uniform_grid const& g, float const* w, float const* weights, index_t n, scale_and_zero at) {
  constexpr index_t lanes = 16;
  float const inverse = 1.0F / at.scale;
  float const bottom = static_cast<float>(-at.zero), top = static_cast<float>(g.last_code() - at.zero);
  float error[lanes] = {}, value_code[lanes] = {}, code_code[lanes] = {};
  auto const add = [&](index_t i, index_t l) {
    float x = w[i] * inverse;
    x = x < bottom ? bottom : x;
    x = x > top ? top : x;
    float const q = (x + 12582912.0F) - 12582912.0F;
    float const difference = w[i] - q * at.scale;
    float const weighted_code = Weighted ? weights[i] * q : q;
    error[l] += Weighted ? weights[i] * difference * difference : difference * difference;
    value_code[l] += weighted_code * w[i];
    code_code[l] += weighted_code * q;
  };
  index_t const whole = n / lanes * lanes;
  for (index_t i = 0; i < whole; i += lanes)
    for (index_t l = 0; l < lanes; ++l) add(i + l, l);
  for (index_t i = whole; i < n; ++i) add(i, i - whole);
  fit_sums total;
  for (index_t l = 0; l < lanes; ++l) {
    total.error += error[l];
    total.value_code += value_code[l];
    total.code_code += code_code[l];
  }
  return total;
}

}  // namespace detail

/// How finely `fit_scale` searches: factors `highest` down to `lowest` times the absmax scale in `candidates` steps,
/// then `refinements` rounds of the least-squares scale of the codes found, s = sum(w q) / sum(q^2).
struct scale_search {
  int candidates = 48;
  double highest = 1.1;
  double lowest = 0.2;
  int refinements = 2;
};

/// Scale and zero point of one group of n finite values.
///
/// absmax: `grid.from_range`. mse and weighted: argmin over s of sum_i weights_i (w_i - Q(w_i; s))^2 over the candidates
/// of `search`, absmax among them, each rounded to `stored_as` before it is judged; so never worse than absmax on that
/// measure (in float). With zero points both ends of the range shrink together. weights: [n] >= 0, or null for ones.
/// An all-zero group, or one without weight, gets its absmax scale. Cost O(candidates * n), no allocation.
[[nodiscard]] inline scale_and_zero fit_scale(uniform_grid const& g, float const* w, index_t n, scale_type stored_as,
                                              scale_rule rule = scale_rule::absmax, float const* weights = nullptr,
                                              scale_search const& search = {}) {
  detail::value_range const range = detail::range_of(w, n);
  scale_and_zero best = g.from_range(range.lowest, range.highest, stored_as);
  if (rule == scale_rule::absmax || (range.lowest == 0 && range.highest == 0)) return best;
  auto const judge = [&](scale_and_zero at) {
    return weights != nullptr ? detail::try_scale<true>(g, w, weights, n, at) : detail::try_scale<false>(g, w, weights, n, at);
  };
  detail::fit_sums best_sums = judge(best);
  // Squares of values beyond 1e19 leave float; such groups keep the absmax scale.
  if (!(best_sums.error <= 3e38F)) return best;
  auto const consider = [&](scale_and_zero at) {
    detail::fit_sums const sums = judge(at);
    if (!(sums.error < best_sums.error)) return false;
    best = at;
    best_sums = sums;
    return true;
  };
  for (int i = 0; i < search.candidates; ++i) {
    double const step = search.candidates > 1 ? static_cast<double>(i) / (search.candidates - 1) : 0.0;
    float const factor = static_cast<float>(search.highest + (search.lowest - search.highest) * step);
    consider(g.from_range(range.lowest * factor, range.highest * factor, stored_as));
  }
  for (int i = 0; i < search.refinements; ++i) {
    if (!(best_sums.code_code > 0)) break;
    double const scale = static_cast<double>(best_sums.value_code) / static_cast<double>(best_sums.code_code);
    if (!(scale > 0) || !consider({round_scale(scale, stored_as, g.span_bits()), best.zero})) break;
  }
  return best;
}

}  // namespace v0
}  // namespace slimtrim
