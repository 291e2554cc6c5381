// The scale of one group of weights: by its range, or searched for the least squared error.
//
// All candidates of a search are judged in one walk over the group, side by side: the loops over candidates are what
// the compiler turns into vectors, so small groups cost no more an element than large ones.
#pragma once

#include <slimtrim/core/index.hpp>
#include <slimtrim/slim/quantize/grid.hpp>
#include <slimtrim/slim/quantize/group.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {

/// How finely `fit_scale` searches: factors `highest` down to `lowest` times the absmax scale in `candidates` steps,
/// then `refinements` rounds of the least-squares scale of the codes found, s = sum(w q) / sum(q^2).
struct scale_search {
  int candidates = 48;
  double highest = 1.1;
  double lowest = 0.2;
  int refinements = 2;
};

namespace detail {

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
  for (index_t half = lanes / 2; half > 0; half /= 2)
    for (index_t l = 0; l < half; ++l) {
      error[l] += error[l + half];
      value_code[l] += value_code[l + half];
      code_code[l] += code_code[l + half];
    }
  return {error[0], value_code[0], code_code[0]};
}

// Candidates side by side.
struct scale_table {
  static constexpr index_t most = 64;
  float scale[most];
  float inverse[most];
  float bottom[most];  // the least q: minus the zero point
  float error[most];
};

// Candidates first .. first + count - 1 of a search over a symmetric grid, as `from_range` would give them for the
// range times each factor, in a form without branches.
inline void fill_symmetric(uniform_grid const& g, float largest, scale_search const& search, scale_type type,
                           index_t first, index_t count, scale_table& table) {
  double const last = search.candidates > 1 ? search.candidates - 1 : 1, highest = search.highest;
  double const width = search.lowest - search.highest, half_range = 0.5 * g.last_code();
  bool const half = type == scale_type::float16;
  double const least = half ? 0x1.0p-24 : 0x1.0p-126;
  double const most = half ? std::min(65504.0, 0x1.fep127 / (1 << g.span_bits())) : 0x1.fep127 / (1 << g.span_bits());
  float const bottom = static_cast<float>(-g.middle());
  int const begin = static_cast<int>(first);
  for (int k = 0; k < static_cast<int>(count); ++k) {
    float const factor = static_cast<float>(highest + width * (static_cast<double>(begin + k) / last));
    double const scale = static_cast<double>(largest * factor) / half_range;
    double const inside = scale < least ? least : (scale > most ? most : scale);
    table.scale[k] = scale > 0 ? static_cast<float>(inside) : 1.0F;
    table.bottom[k] = bottom;
  }
  if (type == scale_type::bfloat16)
    for (index_t k = 0; k < count; ++k) {
      std::uint32_t const bits = bits_as<std::uint32_t>(table.scale[k]);
      table.scale[k] = bits_as<float>((bits + 0x7fffU + ((bits >> 16) & 1U)) & 0xffff0000U);
    }
  if (half)
    for (index_t k = 0; k < count; ++k) table.scale[k] = static_cast<float>(float16(table.scale[k]));
}

// The same for a grid with zero points.
inline void fill_with_zeros(uniform_grid const& g, value_range range, scale_search const& search, scale_type type,
                            index_t first, index_t count, scale_table& table) {
  for (index_t k = 0; k < count; ++k) {
    double const step = search.candidates > 1 ? static_cast<double>(first + k) / (search.candidates - 1) : 0.0;
    float const factor = static_cast<float>(search.highest + (search.lowest - search.highest) * step);
    scale_and_zero const at = g.from_range(range.lowest * factor, range.highest * factor, type);
    table.scale[k] = at.scale;
    table.bottom[k] = static_cast<float>(-at.zero);
  }
}

// Squared errors of the first `count` candidates; four elements a pass, so that sums are loaded and stored seldom.
template <bool Weighted>
void judge_scales(float const* w, float const* weights, index_t n, float last_code, index_t count, scale_table& table) {
  float const* const __restrict scale = table.scale;
  float const* const __restrict bottom = table.bottom;
  float* const __restrict inverse = table.inverse;
  float* const __restrict error = table.error;
  for (index_t k = 0; k < count; ++k) {
    inverse[k] = 1.0F / scale[k];
    error[k] = 0;
  }
  auto const one = [&](float value, float weight, index_t k) {
    float x = value * inverse[k];
    float const low = bottom[k], high = low + last_code;
    x = x < low ? low : x;
    x = x > high ? high : x;
    float const difference = value - ((x + 12582912.0F) - 12582912.0F) * scale[k];
    return Weighted ? weight * difference * difference : difference * difference;
  };
  auto const weight_of = [&](index_t i) { return Weighted ? weights[i] : 1.0F; };
  index_t i = 0;
  for (; i + 4 <= n; i += 4) {
    float const a = w[i], b = w[i + 1], c = w[i + 2], d = w[i + 3];
    float const of_a = weight_of(i), of_b = weight_of(i + 1), of_c = weight_of(i + 2), of_d = weight_of(i + 3);
    for (index_t k = 0; k < count; ++k)
      error[k] += (one(a, of_a, k) + one(b, of_b, k)) + (one(c, of_c, k) + one(d, of_d, k));
  }
  for (; i < n; ++i) {
    float const a = w[i], of_a = weight_of(i);
    for (index_t k = 0; k < count; ++k) error[k] += one(a, of_a, k);
  }
}

}  // namespace detail

/// Scale and zero point of one group of n finite values.
///
/// absmax: `grid.from_range`. mse and weighted: argmin over s of sum_i weights_i (w_i - Q(w_i; s))^2 over the
/// candidates of `search`, absmax among them, each rounded to `stored_as` before it is judged; of equals the first.
/// With zero points both ends of the range shrink together. So never worse than absmax on that measure, summed in
/// float. weights: [n] >= 0, or null for ones. An all-zero group, or one without weight, gets its absmax scale. Cost
/// O(candidates * n), no allocation.
[[nodiscard]] inline scale_and_zero fit_scale(uniform_grid const& g, float const* w, index_t n, scale_type stored_as,
                                              scale_rule rule = scale_rule::absmax, float const* weights = nullptr,
                                              scale_search const& search = {}) {
  detail::value_range const range = detail::range_of(w, n);
  scale_and_zero best = g.from_range(range.lowest, range.highest, stored_as);
  if (rule == scale_rule::absmax || (range.lowest == 0 && range.highest == 0)) return best;
  auto const sums_of = [&](scale_and_zero at) {
    return weights != nullptr ? detail::try_scale<true>(g, w, weights, n, at)
                              : detail::try_scale<false>(g, w, weights, n, at);
  };
  scale_and_zero const plain = best;
  detail::fit_sums const plain_sums = sums_of(plain);
  detail::fit_sums best_sums = plain_sums;
  // Squares of values beyond 1e19 leave float; such groups keep the absmax scale.
  if (!(best_sums.error <= 3e38F)) return best;
  float const largest = std::max(range.highest, -range.lowest), last_code = static_cast<float>(g.last_code());
  float least = best_sums.error;
  detail::scale_table table;
  for (index_t first = 0; first < search.candidates; first += detail::scale_table::most) {
    index_t const count = std::min(detail::scale_table::most, search.candidates - first);
    if (g.symmetric) {
      detail::fill_symmetric(g, largest, search, stored_as, first, count, table);
    } else {
      detail::fill_with_zeros(g, range, search, stored_as, first, count, table);
    }
    if (weights != nullptr) {
      detail::judge_scales<true>(w, weights, n, last_code, count, table);
    } else {
      detail::judge_scales<false>(w, weights, n, last_code, count, table);
    }
    float found = least;
    for (index_t k = 0; k < count; ++k) found = table.error[k] < found ? table.error[k] : found;
    if (!(found < least)) continue;
    index_t k = 0;
    while (table.error[k] != found) ++k;
    least = found;
    best = {table.scale[k], static_cast<int>(-table.bottom[k])};
  }
  if (least < plain_sums.error) best_sums = sums_of(best);
  // Summed in one order, absmax may turn out better after all.
  if (!(best_sums.error < plain_sums.error)) {
    best = plain;
    best_sums = plain_sums;
  }
  for (int i = 0; i < search.refinements; ++i) {
    if (!(best_sums.code_code > 0)) break;
    double const scale = static_cast<double>(best_sums.value_code) / static_cast<double>(best_sums.code_code);
    if (!(scale > 0)) break;
    scale_and_zero const at{round_scale(scale, stored_as, g.span_bits()), best.zero};
    detail::fit_sums const sums = sums_of(at);
    if (!(sums.error < best_sums.error)) break;
    best = at;
    best_sums = sums;
  }
  return best;
}

}  // namespace v0
}  // namespace slimtrim
