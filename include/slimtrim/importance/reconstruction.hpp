// Reconstruction: measure what the layer's output loses, for every subset where that is possible, greedily elsewhere.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/importance/criterion.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <span>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// loss(kept): what is lost when only the experts `kept` (ascending, at least one) stay, for example
/// sum_x |F(x) - F_kept(x)|_2 with the dropped logits at -infinity (`route` with its `kept` mask). Smaller is better.
using reconstruction_loss = std::function<double(std::span<index_t const> kept)>;

struct reconstruction_result {
  std::vector<index_t> kept;           ///< ascending
  double loss = 0;                     ///< of `kept`
  index_t evaluations = 0;             ///< calls of the loss
  std::vector<index_t> removal_order;  ///< greedy only: first removed first
  std::vector<double> losses;          ///< greedy only: the loss after each removal
};

namespace detail {

[[nodiscard]] inline double checked_loss(reconstruction_loss const& loss, std::span<index_t const> kept) {
  double const value = loss(kept);
  if (std::isnan(value)) throw numeric_error("reconstruction: the loss of a subset is not a number");
  return value;
}

}  // namespace detail

/// C(experts, kept), or a value above any limit in use when it exceeds 2^53.
[[nodiscard]] inline double subsets(index_t experts, index_t kept) {
  double count = 1;
  for (index_t i = 1; i <= kept; ++i) count = count * static_cast<double>(experts - kept + i) / static_cast<double>(i);
  return std::round(count);
}

/// argmin of the loss over all subsets of `keep` experts; ties to the lexicographically first.
///
/// Lu et al., arXiv 2402.14800. Cost C(experts, keep) losses. Throws `error` unless 1 <= keep <= experts.
[[nodiscard]] inline reconstruction_result reconstruct_exhaustively(index_t experts, index_t keep,
                                                                    reconstruction_loss const& loss) {
  expects(keep >= 1 && keep <= experts, "reconstruction", "keep: expected 1 .. experts");
  reconstruction_result best;
  std::vector<index_t> kept;
  for (index_t i = 0; i < keep; ++i) kept.push_back(i);
  for (;;) {
    double const value = detail::checked_loss(loss, kept);
    ++best.evaluations;
    if (best.kept.empty() || value < best.loss) {
      best.kept = kept;
      best.loss = value;
    }
    // The next subset in lexicographic order: advance the last index that can, reset those behind it.
    index_t i = keep - 1;
    while (i >= 0 && kept[static_cast<std::size_t>(i)] == experts - keep + i) --i;
    if (i < 0) return best;
    ++kept[static_cast<std::size_t>(i)];
    for (index_t j = i + 1; j < keep; ++j)
      kept[static_cast<std::size_t>(j)] = kept[static_cast<std::size_t>(j - 1)] + 1;
  }
}

/// Removes the expert whose removal leaves the least loss, again and again; ties to the lower index.
///
/// A greedy form of arXiv 2402.14800 for more experts than subsets can be listed. Cost (experts - keep) * experts
/// losses at most. Throws `error` unless 1 <= keep <= experts.
[[nodiscard]] inline reconstruction_result reconstruct_greedily(index_t experts, index_t keep,
                                                                reconstruction_loss const& loss) {
  expects(keep >= 1 && keep <= experts, "reconstruction", "keep: expected 1 .. experts");
  reconstruction_result result;
  for (index_t i = 0; i < experts; ++i) result.kept.push_back(i);
  if (keep == experts) {
    result.loss = detail::checked_loss(loss, result.kept);
    result.evaluations = 1;
  }
  while (static_cast<index_t>(result.kept.size()) > keep) {
    std::size_t best = result.kept.size();
    double least = 0;
    std::vector<index_t> candidate(result.kept.size() - 1);
    for (std::size_t out = 0; out < result.kept.size(); ++out) {
      for (std::size_t i = 0; i < candidate.size(); ++i) candidate[i] = result.kept[i < out ? i : i + 1];
      double const value = detail::checked_loss(loss, candidate);
      ++result.evaluations;
      if (best == result.kept.size() || value < least) {
        best = out;
        least = value;
      }
    }
    result.removal_order.push_back(result.kept[best]);
    result.losses.push_back(least);
    result.kept.erase(result.kept.begin() + static_cast<std::ptrdiff_t>(best));
    result.loss = least;
  }
  return result;
}

/// Exhaustive where at most `most_subsets` subsets exist, else greedy.
[[nodiscard]] inline reconstruction_result reconstruct(index_t experts, index_t keep, reconstruction_loss const& loss,
                                                       index_t most_subsets = 100) {
  expects(keep >= 1 && keep <= experts, "reconstruction", "keep: expected 1 .. experts");
  return subsets(experts, keep) <= static_cast<double>(most_subsets) ? reconstruct_exhaustively(experts, keep, loss)
                                                                     : reconstruct_greedily(experts, keep, loss);
}

/// A greedy run whose losses are nats of the whole model. kl(gone): how much more the model diverges when the first `gone` of the
/// removal order are missing. It is measured after 1, 2, 4, 8, ... removals and after the last one; between two of these the
/// losses are scaled to what they cost there. Never falling, whatever was measured. Cost log2(removals) + 2 evaluations at most.
[[nodiscard]] inline reconstruction_result losses_in_nats(reconstruction_result greedy, std::function<double(std::size_t gone)> const& kl) {
  std::size_t const all = greedy.losses.size();
  double loss_before = 0, kl_before = 0;
  for (std::size_t from = 0, to = 1; from < all; from = to, to = 2 * to) {
    to = std::min(to, all);
    double const loss = greedy.losses[to - 1], measured = kl(to);
    if (std::isnan(measured)) throw numeric_error("reconstruction: a measured divergence is not a number");
    double const now = std::max(measured, kl_before);
    for (std::size_t k = from; k < to; ++k) {
      double const share = loss > loss_before ? std::clamp((greedy.losses[k] - loss_before) / (loss - loss_before), 0.0, 1.0) : 1.0;
      greedy.losses[k] = kl_before + share * (now - kl_before);
    }
    loss_before = loss;
    kl_before = now;
  }
  return greedy;
}

/// Scores for pooling layers, from a greedy run down to one expert: S_j = (increase of the loss at j's removal) / unit,
/// made non-decreasing in removal order; experts never removed score above all. unit: for a loss that is a mean squared
/// error, the layer's mean |x'|^2, so that layers are comparable. Throws `error` unless unit > 0.
[[nodiscard]] inline std::vector<double> reconstruction_scores(reconstruction_result const& greedy, index_t experts,
                                                               double unit) {
  expects(unit > 0, "reconstruction_scores", "unit: expected a value above 0");
  std::vector<double> scores(static_cast<std::size_t>(experts), 0.0);
  double before = 0, last = 0;
  for (std::size_t i = 0; i < greedy.removal_order.size(); ++i) {
    double const increase = (greedy.losses[i] - before) / unit;
    before = greedy.losses[i];
    last = increase > last ? increase : last;
    scores[static_cast<std::size_t>(greedy.removal_order[i])] = last;
  }
  for (index_t const j : greedy.kept) scores[static_cast<std::size_t>(j)] = std::nextafter(last, HUGE_VAL);
  return scores;
}

}  // namespace v0
}  // namespace slimtrim
