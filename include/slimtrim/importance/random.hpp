// Random scores: the baseline that every criterion has to beat.
#pragma once

#include <slimtrim/core/random.hpp>
#include <slimtrim/importance/criterion.hpp>

#include <cstdint>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// S_j uniform in [0, 1), a function of (seed, layer, j) alone.
///
/// Philox counter-based numbers, so any subset of layers gets the scores that it has in the whole. Comparable between
/// layers. `layer` is the index in the original model.
struct random_importance {
  static constexpr need needs = need::weights;
  std::uint64_t seed = 0;

  [[nodiscard]] std::vector<double> operator()(index_t layer, index_t experts) const {
    std::vector<double> scores;
    for (index_t j = 0; j < experts; ++j)
      scores.push_back(uniform_at(seed, static_cast<std::uint64_t>(layer), static_cast<std::uint64_t>(j)));
    return scores;
  }
};

}  // namespace v0
}  // namespace slimtrim
