// What an evaluation measures on one window of tokens: negative log-likelihood, and how far the predictions of a
// changed model lie from those of its base.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Sums over the scored positions of one window, or of several after `add`. All logarithms are natural.
struct window_scores {
  index_t tokens = 0;         // scored positions: the tokens at 1 .. S-1
  double nll = 0;             // sum of -log p(token)
  double base_nll = 0;        // the same under the base, when there is one
  index_t agreements = 0;     // positions where both rank the same token first
  std::vector<float> kl{};    // KL(base || model) in nats, one per scored position, in order

  void add(window_scores const& other) {
    tokens += other.tokens;
    nll += other.nll;
    base_nll += other.base_nll;
    agreements += other.agreements;
    kl.insert(kl.end(), other.kl.begin(), other.kl.end());
  }
};

namespace detail {

struct log_partition {
  double value = 0;     // log sum_v exp(logit_v)
  index_t largest = 0;  // the lowest index among the largest logits
};

[[nodiscard]] inline log_partition log_partition_of(vector_view<float const> logits) {
  log_partition result;
  for (index_t v = 1; v < logits.extent(0); ++v)
    if (logits(v) > logits(result.largest)) result.largest = v;
  double const top = static_cast<double>(logits(result.largest));
  double sum = 0;
  for (index_t v = 0; v < logits.extent(0); ++v) sum += std::exp(static_cast<double>(logits(v)) - top);
  result.value = top + std::log(sum);
  return result;
}

}  // namespace detail

/// -log softmax(logits[t])[tokens[t + 1]] summed over t = 0 .. S-2.
/// logits: [S or S-1, V]; tokens: S ids below V. Sums in double. O(S V).
[[nodiscard]] inline window_scores score_window(matrix_view<float const> logits,
                                                std::span<std::uint32_t const> tokens) {
  window_scores scores;
  for (std::size_t t = 0; t + 1 < tokens.size(); ++t) {
    auto const position = row(logits, static_cast<index_t>(t));
    double const partition = detail::log_partition_of(position).value;
    scores.nll += partition - static_cast<double>(position(static_cast<index_t>(tokens[t + 1])));
    ++scores.tokens;
  }
  return scores;
}

/// As `score_window`, and against a base: KL(base || model) = sum_v p_base(v) (log p_base(v) - log p(v)) per scored
/// position, whether both rank the same token first, and the base's own likelihood.
/// Rounding can leave a KL of identical rows a little below zero; it is clamped to 0.
[[nodiscard]] inline window_scores compare_window(matrix_view<float const> base, matrix_view<float const> logits,
                                                  std::span<std::uint32_t const> tokens) {
  expects_equal(base.extent(1), logits.extent(1), "compare_window", "vocabulary of the two models");
  window_scores scores;
  for (std::size_t t = 0; t + 1 < tokens.size(); ++t) {
    auto const p = row(base, static_cast<index_t>(t)), q = row(logits, static_cast<index_t>(t));
    auto const p_partition = detail::log_partition_of(p), q_partition = detail::log_partition_of(q);
    double divergence = 0;
    for (index_t v = 0; v < p.extent(0); ++v) {
      double const log_p = static_cast<double>(p(v)) - p_partition.value;
      double const log_q = static_cast<double>(q(v)) - q_partition.value;
      divergence += std::exp(log_p) * (log_p - log_q);
    }
    auto const target = static_cast<index_t>(tokens[t + 1]);
    scores.nll += q_partition.value - static_cast<double>(q(target));
    scores.base_nll += p_partition.value - static_cast<double>(p(target));
    scores.agreements += p_partition.largest == q_partition.largest ? 1 : 0;
    scores.kl.push_back(static_cast<float>(std::max(divergence, 0.0)));
    ++scores.tokens;
  }
  return scores;
}

/// The value below which `share` (0 to 1) of the values lie: element ceil(share * n) of the sorted list, counted from
/// 1 (nearest rank). 0 for no values.
[[nodiscard]] inline double percentile(std::vector<float> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  auto const rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(values.size())));
  return static_cast<double>(values[std::clamp<std::size_t>(rank, 1, values.size()) - 1]);
}

}  // namespace v0
}  // namespace slimtrim
