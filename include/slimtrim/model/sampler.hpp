// The next token from logits: greedy or drawn, from a counter-based source, so that a draw depends on the seed, the
// sequence and the step alone.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct sampler_options {
  /// 0: always the most likely token; otherwise logits are divided by it.
  double temperature = 0;
  /// Draw only among the k most likely tokens; 0: among all.
  index_t top_k = 0;
  /// Draw only among the fewest most likely tokens whose probabilities reach this sum (nucleus, arXiv 1904.09751).
  double top_p = 1;
  std::uint64_t seed = 0;
};

/// Draws tokens; owns scratch, so one object serves one thread.
class sampler {
 public:
  /// Throws `error` for a negative temperature or top_k, or a top_p outside (0, 1].
  explicit sampler(sampler_options options = {}) : options_(options) {
    expects(options.temperature >= 0 && std::isfinite(options.temperature), "sampler", "temperature: expected >= 0");
    expects(options.top_k >= 0, "sampler", "top_k: expected >= 0");
    expects(options.top_p > 0 && options.top_p <= 1, "sampler", "top_p: expected above 0, at most 1");
  }

  /// The token for step `step` of sequence `sequence`. logits: [vocabulary]. Ties go to the lower index. Probabilities
  /// in double. O(vocabulary), with top_k or top_p below 1 O(vocabulary log vocabulary). Throws `numeric_error` on NaN.
  [[nodiscard]] std::uint32_t operator()(vector_view<float const> logits, std::uint64_t sequence, std::uint64_t step) {
    index_t const best = most_likely(logits);
    if (options_.temperature == 0) return static_cast<std::uint32_t>(best);
    index_t const vocabulary = logits.extent(0);
    double const largest = static_cast<double>(logits(best));
    probabilities_.resize(static_cast<std::size_t>(vocabulary));
    order_.resize(probabilities_.size());
    std::iota(order_.begin(), order_.end(), index_t{0});
    for (index_t i = 0; i < vocabulary; ++i)
      probabilities_[static_cast<std::size_t>(i)] =
          std::exp((static_cast<double>(logits(i)) - largest) / options_.temperature);
    limit();
    double sum = 0;
    for (index_t const i : order_) sum += probability(i);
    double const target = uniform_at(options_.seed, sequence, step) * sum;
    double reached = 0;
    for (index_t const i : order_) {
      reached += probability(i);
      if (reached > target) return static_cast<std::uint32_t>(i);
    }
    return static_cast<std::uint32_t>(best);
  }

 private:
  [[nodiscard]] double probability(index_t i) const { return probabilities_[static_cast<std::size_t>(i)]; }

  [[nodiscard]] static index_t most_likely(vector_view<float const> logits) {
    index_t const vocabulary = logits.extent(0);
    expects(vocabulary > 0, "sampler", "logits: expected at least one");
    // The largest value first, in lanes that compilers turn into vectors; then where it is, or the first NaN.
    constexpr index_t lanes = 16;
    float most[lanes];
    std::uint32_t not_numbers[lanes] = {};
    for (float& each : most) each = logits(0);
    auto const look = [&](index_t lane, float value) {
      most[lane] = value > most[lane] ? value : most[lane];
      not_numbers[lane] |= value != value ? 1U : 0U;
    };
    index_t i = 0;
    if (logits.stride(0) == 1)
      for (; i + lanes <= vocabulary; i += lanes)
        for (index_t lane = 0; lane < lanes; ++lane) look(lane, logits.data[i + lane]);
    for (; i < vocabulary; ++i) look(0, logits(i));
    float largest = most[0];
    bool all_numbers = true;
    for (index_t lane = 0; lane < lanes; ++lane) {
      largest = most[lane] > largest ? most[lane] : largest;
      all_numbers = all_numbers && not_numbers[lane] == 0;
    }
    for (index_t at = 0; at < vocabulary; ++at) {
      if (!all_numbers && std::isnan(logits(at)))
        throw numeric_error("sampler: logits[" + std::to_string(at) + "]: found NaN");
      if (all_numbers && logits(at) == largest) return at;
    }
    return 0;  // not reached
  }

  // Keeps in `order_` the tokens that may be drawn.
  void limit() {
    bool const by_count = options_.top_k > 0 && options_.top_k < static_cast<index_t>(order_.size());
    if (!by_count && options_.top_p >= 1) return;
    std::sort(order_.begin(), order_.end(), [&](index_t a, index_t b) {
      return probability(a) != probability(b) ? probability(a) > probability(b) : a < b;
    });
    if (by_count) order_.resize(static_cast<std::size_t>(options_.top_k));
    if (options_.top_p >= 1) return;
    double sum = 0, reached = 0;
    for (index_t const i : order_) sum += probability(i);
    std::size_t kept = 0;
    while (kept < order_.size() && (kept == 0 || reached < options_.top_p * sum)) reached += probability(order_[kept++]);
    order_.resize(kept);
  }

  sampler_options options_;
  std::vector<double> probabilities_;
  std::vector<index_t> order_;
};

}  // namespace v0
}  // namespace slimtrim
