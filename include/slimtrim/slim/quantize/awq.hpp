// AWQ: scale up the input channels that matter before rounding, undo the scale where the input is made; then search, group
// by group, how far to clip the range. All errors in Gram form, tr(dW H dWᵀ): the cost does not depend on the tokens.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/slim/hessian.hpp>
#include <slimtrim/slim/quantize/rtn.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct awq_options {
  uniform_grid grid{4, false};
  grouping groups{};
  scale_type scales_stored_as = scale_type::float16;
  int ratios = 20;            // grid points of the exponent in [0, 1)
  bool power_of_two = false;  // channel scales that fold into norms and routers without rounding
  bool clip = true;           // search the range of each group
  int clip_candidates = 20;   // between 1 and clip_lowest
  double clip_lowest = 0.4;
};

/// One matrix among those that read the same input, with the Hessian of the tokens that reach it (experts: its own).
template <class T>
struct awq_member {
  matrix_view<T const> weight{};
  matrix_view<float const> hessian{};
  quantize_options const* rounding = nullptr;  ///< of this member, where it is not that of the search
};

/// Channel scales s: weights become W diag(s), their common input x / s.
struct awq_scales {
  std::vector<float> scales;  // [in], in [1e-4, 1e4]; ones where nothing was gained
  double ratio = -1;          // the exponent that won; -1 for all ones
  double error_plain = 0;     // sum over members of tr(dW H dWᵀ) with all ones
  double error = 0;           // with `scales`
};

namespace detail {

// tr(dW H dWᵀ) for dW = W - Q(W diag(s)) diag(1/s).
template <host_backend B, class T>
double scaled_rtn_error(B const& backend, awq_member<T> const& member, std::vector<float> const& scales,
                        quantize_options const& options) {
  auto const W = member.weight;
  index_t const n = W.extent(0), c = W.extent(1);
  index_t const strip = options.groups.kind == group_kind::tensor ? std::max<index_t>(n, 1) : 512;
  double total = 0;
  matrix<float> scaled(std::min(strip, n), c);
  buffer<double> errors(std::min(strip, n));
  for (index_t first = 0; first < n; first += strip) {
    index_t const height = std::min(strip, n - first);
    auto part = rows(scaled.view(), 0, height);
    for_rows(backend.run_on(), height, [&](index_t i) {
      for (index_t j = 0; j < c; ++j) part(i, j) = static_cast<float>(W(first + i, j)) * scales[static_cast<std::size_t>(j)];
    });
    quantized_matrix const q = rtn(backend, as_const(part), options);
    auto const v = q.view();
    for_rows(backend.run_on(), height, [&](index_t i) {
      dequantize(v, i, &part(i, 0));
      for (index_t j = 0; j < c; ++j)
        part(i, j) = part(i, j) / scales[static_cast<std::size_t>(j)] - static_cast<float>(W(first + i, j));
    });
    hessian_errors(backend, as_const(part), member.hessian, vector_view<double>(errors.data(), height));
    for (index_t i = 0; i < height; ++i) total += errors[i];
  }
  return total;
}

// s = x^ratio / w^(1 - ratio), put around 1 by the geometric mean of its extremes; channels without activity keep 1.
inline std::vector<float> awq_candidate(std::vector<double> const& activity, std::vector<double> const& magnitude, double ratio,
                                        bool power_of_two) {
  std::vector<double> s(activity.size(), 1.0);
  double largest = 0, smallest = 0;
  for (std::size_t j = 0; j < s.size(); ++j) {
    if (!(activity[j] > 0)) continue;
    s[j] = std::max(std::pow(activity[j], ratio) / (std::pow(magnitude[j], 1.0 - ratio) + 1e-4), 1e-4);
    largest = std::max(largest, s[j]);
    smallest = smallest > 0 ? std::min(smallest, s[j]) : s[j];
  }
  double const middle = largest > 0 ? std::sqrt(largest) * std::sqrt(smallest) : 1.0;
  std::vector<float> out(s.size(), 1.0F);
  for (std::size_t j = 0; j < s.size(); ++j) {
    if (!(activity[j] > 0)) continue;
    double value = std::min(std::max(s[j] / middle, 1e-4), 1e4);
    if (power_of_two) value = std::exp2(std::nearbyint(std::log2(value)));
    out[j] = static_cast<float>(value);
  }
  return out;
}

// Rows of `found` whose error against W (both for inputs divided by the scales) is above that of `plain` become plain's; returns how
// many. A judge that is not finite judges nothing.
template <host_backend B>
index_t keep_better_rows(B const& backend, matrix_view<float const> W, matrix_view<float const> judge, std::vector<float> const& scales,
                         quantized_matrix const& plain, quantized_matrix& found) {
  index_t const n = W.extent(0), c = W.extent(1);
  if (!all_finite(judge)) return 0;
  constexpr index_t strip = 512;
  matrix<float> difference(std::min(strip, n), c);
  buffer<double> before(std::min(strip, n)), after(std::min(strip, n));
  index_t kept = 0;
  for (index_t first = 0; first < n; first += strip) {
    index_t const height = std::min(strip, n - first);
    auto const D = rows(difference.view(), 0, height);
    for (quantized_matrix const* q : {&plain, static_cast<quantized_matrix const*>(&found)}) {
      for_rows(backend.run_on(), height, [&](index_t i) {
        dequantize(q->view(), first + i, &D(i, 0));
        for (index_t j = 0; j < c; ++j)
          D(i, j) = (D(i, j) - W(first + i, j)) / (scales.empty() ? 1.0F : scales[static_cast<std::size_t>(j)]);
      });
      hessian_errors(backend, as_const(D), judge, vector_view<double>((q == &plain ? before : after).data(), height));
    }
    for (index_t i = 0; i < height; ++i) {
      if (after[i] <= before[i]) continue;
      ++kept;
      index_t const r = first + i;
      for (index_t g = 0; g < found.scales.extent(1); ++g) found.set(r, g, plain.at(r, g));
      std::copy_n(&plain.words(r, 0), found.words.extent(1), &found.words(r, 0));
    }
  }
  return kept;
}

// Replaces each value by the mean over the channels tied to it.
inline void average_tied(std::vector<index_t> const& tied, std::vector<double>& values) {
  if (tied.empty()) return;
  std::vector<double> sum(values.size(), 0.0), count(values.size(), 0.0);
  for (std::size_t j = 0; j < values.size(); ++j) {
    expects(tied[j] >= 0 && tied[j] < static_cast<index_t>(values.size()), "search_awq_scales", "tie outside the channels");
    sum[static_cast<std::size_t>(tied[j])] += values[j];
    count[static_cast<std::size_t>(tied[j])] += 1.0;
  }
  for (std::size_t j = 0; j < values.size(); ++j)
    values[j] = sum[static_cast<std::size_t>(tied[j])] / count[static_cast<std::size_t>(tied[j])];
}

}  // namespace detail

/// The channel scales with the least total output error among s = x̄^r / w̄^(1-r), r on a grid, and s = 1.
///
/// (Lin et al. 2023, arXiv 2306.00978, eq. 4-5, with the weight term of its code.) members: matrices [out_m, in] that share an input, each
/// with the Hessian of its own tokens. x̄_j = sqrt(sum of H_jj) stands for the mean magnitude (deviation: no second statistic is
/// needed, and RMS and mean magnitude rank channels alike); w̄_j = mean over all rows of |w| / max|w of its group|. Deviation: s = 1 is among
/// the candidates, so scaling never raises the error; a channel without activity keeps 1.
/// tied: empty, or [in], the scale that a channel shares with others (the heads that read one value head): their activities and
/// magnitudes are averaged, so equal entries get equal scales.
/// Members with a Hessian that is not finite are left out. Throws `error` for shapes, `input_error` for NaN or Inf in a weight.
/// Cost (ratios + 1) (out in² + out in) multiply-adds a member; scratch 512 rows. Byte-identical for any executor.
template <host_backend B, class T>
[[nodiscard]] awq_scales search_awq_scales(B const& backend, std::vector<awq_member<T>> const& members,
                                           awq_options const& options = {}, std::vector<index_t> const& tied = {}) {
  if constexpr (requires { backend.search_awq_scales(members, options, tied); }) {
    return backend.search_awq_scales(members, options, tied);
  } else {
    awq_scales best;
    if (members.empty()) return best;
    index_t const c = members.front().weight.extent(1);
    std::size_t const width = static_cast<std::size_t>(c);
    if (!tied.empty()) expects_equal(static_cast<long long>(tied.size()), c, "search_awq_scales", "ties of channels");
    quantize_options const plain{options.grid, options.groups, scale_rule::absmax, options.scales_stored_as, {}};
    std::vector<double> activity(width, 0.0), magnitude(width, 0.0);
    std::vector<awq_member<T>> used;
    double rows_seen = 0;
    for (auto const& member : members) {
      index_t const group = (member.rounding != nullptr ? member.rounding->groups : options.groups).block_columns(c);
      expects_equal(member.weight.extent(1), c, "search_awq_scales", "inputs of a member");
      expects_equal(member.hessian.extent(0), c, "search_awq_scales", "rows of a Hessian");
      expects_equal(member.hessian.extent(1), c, "search_awq_scales", "columns of a Hessian");
      detail::name_non_finite<T>(member.weight, "search_awq_scales");
      if (!detail::all_finite(member.hessian)) continue;
      used.push_back(member);
      for (index_t j = 0; j < c; ++j)
        activity[static_cast<std::size_t>(j)] += std::max(0.0, static_cast<double>(member.hessian(j, j)));
      for (index_t i = 0; i < member.weight.extent(0); ++i)
        for (index_t first = 0; first < c; first += group) {
          index_t const last = std::min(c, first + group);
          double largest = 0;
          for (index_t j = first; j < last; ++j) largest = std::max(largest, std::fabs(static_cast<double>(static_cast<float>(member.weight(i, j)))));
          if (!(largest > 0)) continue;
          for (index_t j = first; j < last; ++j)
            magnitude[static_cast<std::size_t>(j)] += std::fabs(static_cast<double>(static_cast<float>(member.weight(i, j)))) / largest;
        }
      rows_seen += static_cast<double>(member.weight.extent(0));
    }
    best.scales.assign(width, 1.0F);
    if (used.empty() || !(rows_seen > 0)) return best;
    detail::average_tied(tied, activity);
    detail::average_tied(tied, magnitude);
    double mean = 0;
    for (double const a : activity) mean += a / static_cast<double>(width);
    for (std::size_t j = 0; j < width; ++j) {
      activity[j] = mean > 0 ? std::sqrt(activity[j] / mean) : 0.0;
      magnitude[j] /= rows_seen;
    }
    auto const error_of = [&](std::vector<float> const& scales) {
      double sum = 0;
      for (auto const& member : used)
        sum += detail::scaled_rtn_error(backend, member, scales, member.rounding != nullptr ? *member.rounding : plain);
      return sum;
    };
    best.error_plain = best.error = error_of(best.scales);
    if (!(mean > 0)) return best;
    for (int i = 0; i < options.ratios; ++i) {
      double const ratio = static_cast<double>(i) / options.ratios;
      auto candidate = detail::awq_candidate(activity, magnitude, ratio, options.power_of_two);
      double const error = error_of(candidate);
      if (!(error < best.error)) continue;
      best.error = error;
      best.ratio = ratio;
      best.scales = std::move(candidate);
    }
    return best;
  }
}

/// Rounds W diag(scales), clipping each group's range so that its output error is least.
///
/// For each row and group, argmin over f of d H_gg dᵀ with d = w' - Q(w'; range * f), w' = w diag(s), H' = diag(1/s) H diag(1/s): the error
/// of that group alone on the calibration tokens (AWQ's clip search in Gram form). f = 1 is a candidate. A row whose error over
/// all groups, d H dᵀ, did not fall is left as plain rounding has it (deviation): clipping is never worse than not clipping on the
/// tokens of `judge`, which is the Hessian itself unless another is given (an under-fed expert's own, where a blend steers).
/// Without clip, or with a Hessian that is not finite, plain round-to-nearest of W diag(s).
/// weight: [out, in]; hessian, judge: [in, in] of the *unscaled* input; scales: [in] or empty for ones; rows_kept: where given, the rows
/// left as they were. The result stands for W diag(s): whoever uses it divides the input by s. Cost (2 candidates group + 2 in) out in
/// multiply-adds. Byte-identical for any executor.
template <host_backend B, matrix_like M>
[[nodiscard]] quantized_matrix awq(B const& backend, M&& weight, matrix_view<float const> hessian,
                                   std::vector<float> const& scales = {}, awq_options const& options = {},
                                   matrix_view<float const> judge = {}, index_t* rows_kept = nullptr) {
  auto const W = as_const_matrix(weight);
  using T = typename std::remove_cvref_t<decltype(W)>::value_type;
  if constexpr (requires { backend.awq(W, hessian, scales, options, judge, rows_kept); }) {
    return backend.awq(W, hessian, scales, options, judge, rows_kept);
  } else {
    index_t const n = W.extent(0), c = W.extent(1), width = options.groups.block_columns(c);
    expects_equal(hessian.extent(0), c, "awq", "rows of the Hessian");
    expects_equal(hessian.extent(1), c, "awq", "columns of the Hessian");
    if (!scales.empty()) expects_equal(static_cast<long long>(scales.size()), c, "awq", "channel scales");
    for (float const s : scales) expects(s > 0 && std::isfinite(s), "awq", "channel scales must be positive and finite");
    auto const scale_of = [&](index_t j) { return scales.empty() ? 1.0F : scales[static_cast<std::size_t>(j)]; };
    detail::name_non_finite<T>(W, "awq");
    matrix<float> scaled(n, c);
    detail::for_rows(backend.run_on(), n, [&](index_t i) {
      for (index_t j = 0; j < c; ++j) scaled(i, j) = static_cast<float>(W(i, j)) * scale_of(j);
    });
    quantized_matrix out =
        rtn(backend, scaled, {options.grid, options.groups, scale_rule::absmax, options.scales_stored_as, {}});
    if (rows_kept != nullptr) *rows_kept = n;
    if (!options.clip || options.groups.kind == group_kind::tensor || !detail::all_finite(hessian)) return out;
    quantized_matrix const plain = rtn(backend, scaled, {options.grid, options.groups, scale_rule::absmax, options.scales_stored_as, {}});

    constexpr index_t strip = 64;
    parallel_for(backend.run_on(), ceil_div(n, strip), [&](index_t piece) {
      index_t const first = piece * strip, height = std::min(strip, n - first);
      index_t const widest = std::min(width, c);
      matrix<float> H(widest, widest), difference(height, widest), moved(height, widest);
      buffer<float> loss(height), least(height);
      buffer<std::uint8_t> codes(c);
      for (index_t g = 0, start = 0; start < c; ++g, start += width) {
        index_t const m = std::min(width, c - start);
        auto const Hg = columns(rows(H.view(), 0, m), 0, m);
        for (index_t a = 0; a < m; ++a)
          for (index_t b = 0; b < m; ++b) Hg(a, b) = hessian(start + a, start + b) / (scale_of(start + a) * scale_of(start + b));
        auto const D = columns(difference.view(), 0, m), P = columns(moved.view(), 0, m);
        std::vector<scale_and_zero> best(static_cast<std::size_t>(height));
        for (int k = 0; k <= options.clip_candidates; ++k) {
          float const factor = static_cast<float>(1.0 - (1.0 - options.clip_lowest) * k / std::max(1, options.clip_candidates));
          std::vector<scale_and_zero> at(static_cast<std::size_t>(height));
          for (index_t i = 0; i < height; ++i) {
            float const* const w = &scaled(first + i, start);
            detail::value_range const range = detail::range_of(w, m);
            scale_and_zero const s = options.grid.from_range(range.lowest * factor, range.highest * factor, options.scales_stored_as);
            at[static_cast<std::size_t>(i)] = s;
            detail::encode_run(options.grid, w, m, s, codes.data());
            for (index_t j = 0; j < m; ++j) D(i, j) = w[j] - static_cast<float>(static_cast<int>(codes[j]) - s.zero) * s.scale;
          }
          backend.gemm(1.0F, as_const(D), as_const(Hg), 0.0F, P);
          backend.row_dots(as_const(D), as_const(P), vector_view<float>(loss.data(), height));
          for (index_t i = 0; i < height; ++i)
            if (k == 0 || loss[i] < least[i]) {
              least[i] = loss[i];
              best[static_cast<std::size_t>(i)] = at[static_cast<std::size_t>(i)];
            }
        }
        for (index_t i = 0; i < height; ++i) out.set(first + i, g, best[static_cast<std::size_t>(i)]);
      }
      for (index_t i = first; i < first + height; ++i) {
        for (index_t g = 0, start = 0; start < c; ++g, start += width)
          detail::encode_run(options.grid, &scaled(i, start), std::min(width, c - start), out.at(i, g), codes.data() + start);
        out.set_row(i, codes.data());
      }
    });
    index_t const kept = detail::keep_better_rows(backend, as_const(scaled.view()), judge.data != nullptr ? judge : hessian, scales, plain, out);
    if (rows_kept != nullptr) *rows_kept = kept;
    return out;
  }
}

}  // namespace v0
}  // namespace slimtrim
