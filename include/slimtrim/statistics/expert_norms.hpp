// Norms of expert outputs on the tokens that each expert was given, plain and weighted in every way that a criterion
// asks.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/router/routing_view.hpp>
#include <slimtrim/statistics/exact_array.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What `expert_norms` sums, of some tokens, added up elsewhere.
struct expert_norm_sums {
  std::vector<double> norm, square, weighted, raw_weighted, renormalised_weighted, weighted_square,
      change_weighted;          // [experts]
  std::vector<double> largest;  // [experts]
  std::vector<double> pair;     // [experts, experts]
};

/// Sums over routed tokens, with f the expert's output before the gate, g the weight that the model multiplies with, p
/// the raw score and q = p / (sum of p over the token's slots), s_t how much the layer changed token t.
///
/// A window: `begin_window(tokens, slots)`, `add_outputs` for each expert, `add(routing, change)`, `commit_window()`.
/// Memory 24 experts (experts + 9) bytes and one float per (token, slot) of the open window. Deterministic.
class expert_norms : public accumulator<expert_norms> {
 public:
  explicit expert_norms(index_t experts)
      : experts_(experts),
        norm_("norms.norm", {experts}, fixed_point_scale::magnitudes),
        square_("norms.square", {experts}, fixed_point_scale::magnitudes),
        weighted_("norms.weighted", {experts}, fixed_point_scale::magnitudes),
        raw_weighted_("norms.raw_weighted", {experts}, fixed_point_scale::magnitudes),
        renormalised_weighted_("norms.renormalised_weighted", {experts}, fixed_point_scale::magnitudes),
        weighted_square_("norms.weighted_square", {experts}, fixed_point_scale::magnitudes),
        change_weighted_("norms.change_weighted", {experts}, fixed_point_scale::magnitudes),
        largest_("norms.largest", {experts}, fixed_point_scale::magnitudes, combine_by::maximum),
        pair_("norms.pair", {experts, experts}, fixed_point_scale::magnitudes) {}

  void begin_window(index_t tokens, index_t slots) {
    tokens_ = tokens;
    slots_ = slots;
    norms_.assign(static_cast<std::size_t>(tokens * slots), 0.0F);
  }

  /// Keeps the norms of one expert's outputs. outputs: [n, hidden], row i belonging to tokens[i], slots[i].
  template <host_backend B>
  void add_outputs(B const& backend, index_t expert, std::span<std::int32_t const> tokens,
                   std::span<std::int32_t const> slots, matrix_view<float const> outputs) {
    expects(expert >= 0 && expert < experts_, "expert_norms", "expert: expected an index below the number of experts");
    expects_equal(static_cast<long long>(tokens.size()), outputs.extent(0), "expert_norms", "length of tokens");
    expects_equal(static_cast<long long>(slots.size()), outputs.extent(0), "expert_norms", "length of slots");
    squares_.resize(tokens.size());
    backend.row_dots(outputs, outputs, vector_view<float>(squares_.data(), squares_.size()));
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      expects(tokens[i] >= 0 && tokens[i] < tokens_ && slots[i] >= 0 && slots[i] < slots_, "expert_norms",
              "tokens, slots: expected positions inside the window");
      norms_[static_cast<std::size_t>(tokens[i] * slots_ + slots[i])] = std::sqrt(squares_[i]);
      largest_.raise_to(expert, static_cast<double>(largest_magnitude(row(outputs, static_cast<index_t>(i)))));
    }
  }

  /// Adds the window. change: [tokens], s_t = 1 - cos(x'_t, x'_t + MoE_t), or empty.
  void add(routing_view const& routing, std::span<double const> change = {}) {
    check_routing_view(routing, experts_);
    expects_equal(routing.tokens(), tokens_, "expert_norms", "tokens of the window");
    expects_equal(routing.slots(), slots_, "expert_norms", "slots of the window");
    if (!change.empty())
      expects_equal(static_cast<long long>(change.size()), tokens_, "expert_norms", "length of change");
    for (index_t t = 0; t < tokens_; ++t) {
      double const sum = routing.raw_gate_sum(t);
      for (index_t slot = 0; slot < slots_; ++slot) {
        index_t const j = routing.indices(t, slot);
        if (j < 0) continue;
        double const norm = norm_of(t, slot), raw = routing.raw_gate(t, slot);
        double const weighted = static_cast<double>(routing.weights(t, slot)) * norm;
        norm_.add(j, norm);
        square_.add(j, norm * norm);
        weighted_.add(j, weighted);
        raw_weighted_.add(j, raw * norm);
        renormalised_weighted_.add(j, sum > 0 ? raw / sum * norm : 0.0);
        weighted_square_.add(j, weighted * weighted);
        if (!change.empty()) change_weighted_.add(j, change[static_cast<std::size_t>(t)] * weighted);
        for (index_t other = 0; other < slots_; ++other)
          if (index_t const i = routing.indices(t, other); i >= 0)
            pair_.add(j * experts_ + i, weighted * static_cast<double>(routing.weights(t, other)) * norm_of(t, other));
      }
    }
  }

  /// Adds what was summed elsewhere to an open window. Throws `error` when it is of another number of experts.
  void add(expert_norm_sums const& sums) {
    norm_.add_all(sums.norm);
    square_.add_all(sums.square);
    weighted_.add_all(sums.weighted);
    raw_weighted_.add_all(sums.raw_weighted);
    renormalised_weighted_.add_all(sums.renormalised_weighted);
    weighted_square_.add_all(sums.weighted_square);
    change_weighted_.add_all(sums.change_weighted);
    pair_.add_all(sums.pair);
    expects_equal(static_cast<long long>(sums.largest.size()), experts_, "expert_norms", "length of largest");
    for (std::size_t j = 0; j < sums.largest.size(); ++j) largest_.raise_to(static_cast<index_t>(j), sums.largest[j]);
  }

  [[nodiscard]] index_t experts() const { return experts_; }
  /// Sum of |f|.
  [[nodiscard]] double norm(index_t j) const { return norm_.value(j); }
  /// Sum of |f|^2.
  [[nodiscard]] double square(index_t j) const { return square_.value(j); }
  /// Sum of g |f|.
  [[nodiscard]] double weighted(index_t j) const { return weighted_.value(j); }
  /// Sum of p |f|.
  [[nodiscard]] double raw_weighted(index_t j) const { return raw_weighted_.value(j); }
  /// Sum of q |f|.
  [[nodiscard]] double renormalised_weighted(index_t j) const { return renormalised_weighted_.value(j); }
  /// Sum of g^2 |f|^2.
  [[nodiscard]] double weighted_square(index_t j) const { return weighted_square_.value(j); }
  /// Sum of s_t g |f|.
  [[nodiscard]] double change_weighted(index_t j) const { return change_weighted_.value(j); }
  /// Largest |element| of any output.
  [[nodiscard]] double largest(index_t j) const { return largest_.value(j); }
  /// Sum over tokens that hold both of g_i |f_i| g_j |f_j|.
  [[nodiscard]] double pair(index_t i, index_t j) const { return pair_.value(i * experts_ + j); }

  template <class Self, class F>
  static void each(Self& self, F&& f) {
    f(self.norm_);
    f(self.square_);
    f(self.weighted_);
    f(self.raw_weighted_);
    f(self.renormalised_weighted_);
    f(self.weighted_square_);
    f(self.change_weighted_);
    f(self.largest_);
    f(self.pair_);
  }

 private:
  [[nodiscard]] double norm_of(index_t token, index_t slot) const {
    return static_cast<double>(norms_[static_cast<std::size_t>(token * slots_ + slot)]);
  }
  // Magnitudes of floats are ordered as their bits, and an integer maximum is one that compilers vectorise.
  [[nodiscard]] static float largest_magnitude(vector_view<float const> x) {
    std::uint32_t largest = 0;
    for (index_t i = 0; i < x.extent(0); ++i) {
      std::uint32_t const magnitude = bits_as<std::uint32_t>(x(i)) & 0x7fffffffU;
      largest = magnitude > largest ? magnitude : largest;
    }
    return bits_as<float>(largest);
  }

  index_t experts_;
  index_t tokens_ = 0, slots_ = 0;
  std::vector<float> norms_, squares_;
  exact_array norm_, square_, weighted_, raw_weighted_, renormalised_weighted_, weighted_square_, change_weighted_,
      largest_, pair_;
};

}  // namespace v0
}  // namespace slimtrim
