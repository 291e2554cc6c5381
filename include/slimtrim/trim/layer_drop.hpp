// Layer Drop: MoE sublayers (with their norm) that hardly change the residual stream go; attention-only drop likewise.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/statistics/similarity_statistics.hpp>
#include <slimtrim/trim/select_layers.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Which part of a decoder layer is dropped.
enum class layer_part { moe, attention, block };

/// How layers are chosen. `greedy`, `greedy_kl` and `exhaustive_kl` need tokens, `random` needs nothing, the others statistics.
enum class layer_criterion {
  cosine,               ///< norm-inclusive cosine of arXiv 2406.02500 eq. 9
  cosine_without_norm,  ///< eq. 8, MoE only, to compare
  angular,              ///< mean angle of arXiv 2403.17887
  greedy,               ///< cosine again after each drop
  greedy_kl,            ///< least measured KL at each step
  exhaustive_kl,        ///< least measured KL of all sets of that count
  consecutive,          ///< one run of blocks, by the similarity around it (Block Drop only)
  random,
};

/// Throws `usage_error` that lists the known names when there is no such criterion.
[[nodiscard]] inline layer_criterion find_layer_criterion(std::string_view name) {
  if (name == "cosine") return layer_criterion::cosine;
  if (name == "cosine_without_norm") return layer_criterion::cosine_without_norm;
  if (name == "angular") return layer_criterion::angular;
  if (name == "greedy") return layer_criterion::greedy;
  if (name == "greedy_kl") return layer_criterion::greedy_kl;
  if (name == "exhaustive_kl") return layer_criterion::exhaustive_kl;
  if (name == "consecutive") return layer_criterion::consecutive;
  if (name == "random") return layer_criterion::random;
  throw usage_error(
      "criterion: expected one of cosine, cosine_without_norm, angular, greedy, greedy_kl, exhaustive_kl, consecutive, "
      "random, found '" +
      std::string(name) + "'");
}

/// One layer's similarity for one of the one-shot criteria; high = drop. For `angular` it is 1 - mean angle.
/// Throws `error` when the criterion is not one shot, or has no such part.
[[nodiscard]] inline double layer_similarity(similarity_statistics const& layer, layer_part part,
                                             layer_criterion criterion) {
  if (criterion == layer_criterion::cosine || criterion == layer_criterion::greedy)
    return part == layer_part::moe ? layer.moe() : (part == layer_part::attention ? layer.attention() : layer.block());
  if (criterion == layer_criterion::angular)
    return 1.0 - (part == layer_part::moe
                      ? layer.moe_angle()
                      : (part == layer_part::attention ? layer.attention_angle() : layer.block_angle()));
  expects(criterion == layer_criterion::cosine_without_norm, "layer_similarity",
          "criterion: expected a one-shot criterion");
  expects(part == layer_part::moe, "layer_similarity", "cosine_without_norm: expected the part moe");
  return layer.moe_without_norm();
}

/// Candidates with seeded random similarities, a function of (seed, layer) alone.
[[nodiscard]] inline std::vector<layer_candidate> random_candidates(std::vector<index_t> const& layers,
                                                                    std::uint64_t seed) {
  constexpr std::uint64_t stream = 0x6c61796572ULL;  // apart from the streams of random_importance
  std::vector<layer_candidate> result;
  for (index_t const layer : layers)
    result.push_back({layer, uniform_at(seed, stream, static_cast<std::uint64_t>(layer))});
  return result;
}

/// Layer Drop by one-shot similarity: candidates are the MoE layers that are left, dense layers are not among them.
///
/// arXiv 2406.02500 sec. 4.2, eq. 9. Errors as `select_most_similar`.
[[nodiscard]] inline layer_selection layer_drop(std::vector<layer_candidate> const& candidates,
                                                layer_budget const& budget) {
  return select_most_similar(candidates, budget);
}

}  // namespace v0
}  // namespace slimtrim
