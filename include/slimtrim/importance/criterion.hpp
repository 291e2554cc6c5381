// What an expert criterion is: one score per expert, low = remove first, and what it must be given, as part of its
// type.
#pragma once

#include <slimtrim/core/index.hpp>
#include <slimtrim/statistics/layer_statistics.hpp>

#include <concepts>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What a criterion must be given. `weights`: the checkpoint at most. `statistics`: the sums of one pass, without the
/// model. `tokens`: a second streamed pass, because candidates are measured.
enum class need { weights, statistics, tokens };

[[nodiscard]] constexpr std::string_view name_of(need what) {
  return what == need::weights ? "weights" : (what == need::statistics ? "statistics" : "tokens");
}

/// Scores [experts] from the statistics of one layer.
template <class C>
concept statistics_criterion = requires(C const& criterion, layer_statistics const& layer) {
  { criterion(layer) } -> std::same_as<std::vector<double>>;
  requires C::needs == need::statistics;
};

namespace detail {

// score(j) for each expert of the layer.
template <class F>
[[nodiscard]] std::vector<double> each_expert(layer_statistics const& layer, F&& score) {
  std::vector<double> result;
  result.reserve(static_cast<std::size_t>(layer.experts()));
  for (index_t j = 0; j < layer.experts(); ++j) result.push_back(score(j));
  return result;
}

// A mean over a count that may be zero: such an expert scores 0 and is listed by router_statistics::unreached.
[[nodiscard]] inline double ratio(double sum, double count) { return count > 0 ? sum / count : 0.0; }

}  // namespace detail

}  // namespace v0
}  // namespace slimtrim
