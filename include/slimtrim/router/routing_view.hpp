// What `route` found for a window of tokens, as one argument for everything that reads it.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {

/// The outputs of `route` in host memory. For routers whose weight scales the expert's input, the outputs already carry
/// it: give weights of 1 to whatever multiplies them with output norms.
struct routing_view {
  matrix_view<float const> probabilities{};   ///< [tokens, experts], the scores over all experts
  matrix_view<std::int32_t const> indices{};  ///< [tokens, slots], negative: unused slot
  matrix_view<float const> weights{};         ///< [tokens, slots], what the model multiplies with

  [[nodiscard]] index_t tokens() const { return indices.extent(0); }
  [[nodiscard]] index_t slots() const { return indices.extent(1); }
  [[nodiscard]] index_t experts() const { return probabilities.extent(1); }

  /// The score of the expert in a slot, before renormalisation and scale; 0 for an unused slot.
  [[nodiscard]] double raw_gate(index_t token, index_t slot) const {
    std::int32_t const expert = indices(token, slot);
    return expert < 0 ? 0.0 : static_cast<double>(probabilities(token, expert));
  }
  /// The sum of the raw gates of a token's slots.
  [[nodiscard]] double raw_gate_sum(index_t token) const {
    double sum = 0;
    for (index_t slot = 0; slot < slots(); ++slot) sum += raw_gate(token, slot);
    return sum;
  }
};

/// Throws `error` when the three parts disagree, or an index is not below `experts`.
inline void check_routing_view(routing_view const& routing, index_t experts) {
  expects_equal(routing.experts(), experts, "routing_view", "columns of probabilities");
  expects_equal(routing.probabilities.extent(0), routing.tokens(), "routing_view", "rows of probabilities");
  expects_equal(routing.weights.extent(0), routing.tokens(), "routing_view", "rows of weights");
  expects_equal(routing.weights.extent(1), routing.slots(), "routing_view", "columns of weights");
  for (index_t t = 0; t < routing.tokens(); ++t)
    for (index_t slot = 0; slot < routing.slots(); ++slot)
      expects(routing.indices(t, slot) < experts, "routing_view",
              "indices: expected experts below the number of experts");
}

}  // namespace v0
}  // namespace slimtrim
