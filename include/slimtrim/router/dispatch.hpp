// Tokens grouped by expert, so that each expert is one matrix product over the rows that chose it.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// The routed (token, slot) pairs of a window, sorted by expert, then token, then slot.
struct dispatch {
  std::vector<index_t> offsets;      ///< [experts + 1]: expert e owns positions offsets[e] .. offsets[e + 1]
  std::vector<std::int32_t> tokens;  ///< [pairs]
  std::vector<std::int32_t> slots;   ///< [pairs]

  [[nodiscard]] index_t experts() const { return static_cast<index_t>(offsets.size()) - 1; }
  [[nodiscard]] index_t pairs() const { return static_cast<index_t>(tokens.size()); }
  [[nodiscard]] index_t count(index_t expert) const { return at(expert + 1) - at(expert); }
  /// The tokens of one expert, ascending; empty when nobody chose it.
  [[nodiscard]] std::span<std::int32_t const> tokens_of(index_t expert) const { return part(tokens, expert); }
  /// For each of `tokens_of(expert)`, the slot in which the token holds this expert.
  [[nodiscard]] std::span<std::int32_t const> slots_of(index_t expert) const { return part(slots, expert); }

 private:
  [[nodiscard]] index_t at(index_t i) const { return offsets[static_cast<std::size_t>(i)]; }
  [[nodiscard]] std::span<std::int32_t const> part(std::vector<std::int32_t> const& all, index_t expert) const {
    return std::span<std::int32_t const>(all).subspan(static_cast<std::size_t>(at(expert)),
                                                      static_cast<std::size_t>(count(expert)));
  }
};

/// Counting sort of routed pairs by expert, stable. indices: [tokens, slots] of expert numbers, negative for an unused
/// slot. Reuses the storage of `result`. Cost O(tokens * slots + experts). Deterministic.
/// Throws `error` when an index is not below `experts`.
inline void group_by_expert(matrix_view<std::int32_t const> indices, index_t experts, dispatch& result) {
  expects(experts >= 0, "group_by_expert", "experts: expected a count >= 0");
  result.offsets.assign(static_cast<std::size_t>(experts) + 1, 0);
  for (index_t t = 0; t < indices.extent(0); ++t)
    for (index_t slot = 0; slot < indices.extent(1); ++slot) {
      index_t const expert = indices(t, slot);
      if (expert < 0) continue;
      if (expert >= experts)
        throw error("group_by_expert: indices[" + std::to_string(t) + ", " + std::to_string(slot) +
                    "]: expected an expert below " + std::to_string(experts) + ", found " + std::to_string(expert));
      ++result.offsets[static_cast<std::size_t>(expert) + 1];
    }
  for (std::size_t e = 1; e < result.offsets.size(); ++e) result.offsets[e] += result.offsets[e - 1];
  auto const pairs = static_cast<std::size_t>(result.offsets.back());
  result.tokens.resize(pairs);
  result.slots.resize(pairs);
  std::vector<index_t> next(result.offsets.begin(), result.offsets.end() - 1);
  for (index_t t = 0; t < indices.extent(0); ++t)
    for (index_t slot = 0; slot < indices.extent(1); ++slot) {
      index_t const expert = indices(t, slot);
      if (expert < 0) continue;
      auto const position = static_cast<std::size_t>(next[static_cast<std::size_t>(expert)]++);
      result.tokens[position] = static_cast<std::int32_t>(t);
      result.slots[position] = static_cast<std::int32_t>(slot);
    }
}

/// The same, returning a new grouping.
[[nodiscard]] inline dispatch group_by_expert(matrix_view<std::int32_t const> indices, index_t experts) {
  dispatch result;
  group_by_expert(indices, experts, result);
  return result;
}

}  // namespace v0
}  // namespace slimtrim
