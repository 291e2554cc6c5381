// What the router alone tells about the experts of one layer.
#pragma once

#include <slimtrim/router/routing_view.hpp>
#include <slimtrim/statistics/exact_array.hpp>

#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What `router_statistics` sums, of some tokens: for whoever adds them up elsewhere, on a device or in another
/// process.
struct router_sums {
  double tokens = 0;
  std::vector<double> count, probability, weight, raw_weight, renormalised_weight;  // [experts]
  std::vector<double> coactivation;                                                 // [experts, experts]
  std::vector<double> product;  // [experts, experts], element (j, i) for i <= j
};

/// Counts, probabilities and gate weights of `experts` experts. Memory 24 experts (2 experts + 6) bytes, whatever the
/// number of tokens. Doubles within a window, exact across windows. Deterministic.
class router_statistics : public accumulator<router_statistics> {
 public:
  explicit router_statistics(index_t experts)
      : experts_(experts),
        tokens_("router.tokens", {1}, fixed_point_scale::counts),
        count_("router.count", {experts}, fixed_point_scale::counts),
        probability_("router.probability", {experts}, fixed_point_scale::ratios),
        weight_("router.weight", {experts}, fixed_point_scale::ratios),
        raw_weight_("router.raw_weight", {experts}, fixed_point_scale::ratios),
        renormalised_weight_("router.renormalised_weight", {experts}, fixed_point_scale::ratios),
        coactivation_("router.coactivation", {experts, experts}, fixed_point_scale::counts),
        product_("router.probability_product", {experts, experts}, fixed_point_scale::ratios) {}

  /// Adds the tokens of an open window. Throws `error` when `routing` has other extents.
  void add(routing_view const& routing) {
    check_routing_view(routing, experts_);
    tokens_.add(0, static_cast<double>(routing.tokens()));
    for (index_t t = 0; t < routing.tokens(); ++t) {
      for (index_t j = 0; j < experts_; ++j) {
        double const p = static_cast<double>(routing.probabilities(t, j));
        probability_.add(j, p);
        if (p == 0) continue;
        // The lower triangle is enough: probability_product reads it for both orders.
        double* const products = product_.window().data() + j * experts_;
        for (index_t i = 0; i <= j; ++i) products[i] += p * static_cast<double>(routing.probabilities(t, i));
      }
      double const sum = routing.raw_gate_sum(t);
      for (index_t slot = 0; slot < routing.slots(); ++slot) {
        index_t const j = routing.indices(t, slot);
        if (j < 0) continue;
        double const raw = routing.raw_gate(t, slot);
        count_.add(j, 1);
        weight_.add(j, static_cast<double>(routing.weights(t, slot)));
        raw_weight_.add(j, raw);
        renormalised_weight_.add(j, sum > 0 ? raw / sum : 0.0);
        for (index_t other = 0; other < routing.slots(); ++other)
          if (routing.indices(t, other) >= 0) coactivation_.add(j * experts_ + routing.indices(t, other), 1);
      }
    }
  }

  /// Adds what was summed elsewhere to an open window. Throws `error` when it is of another number of experts.
  void add(router_sums const& sums) {
    tokens_.add(0, sums.tokens);
    count_.add_all(sums.count);
    probability_.add_all(sums.probability);
    weight_.add_all(sums.weight);
    raw_weight_.add_all(sums.raw_weight);
    renormalised_weight_.add_all(sums.renormalised_weight);
    coactivation_.add_all(sums.coactivation);
    product_.add_all(sums.product);
  }

  [[nodiscard]] index_t experts() const { return experts_; }
  [[nodiscard]] double tokens() const { return tokens_.value(0); }
  /// N_j: tokens whose top-k holds expert j.
  [[nodiscard]] double count(index_t j) const { return count_.value(j); }
  /// Sum over all tokens of the score of expert j among all experts.
  [[nodiscard]] double probability(index_t j) const { return probability_.value(j); }
  /// Sum over routed tokens of the weight that the model multiplies with.
  [[nodiscard]] double weight(index_t j) const { return weight_.value(j); }
  /// The same of the score before renormalisation and scale.
  [[nodiscard]] double raw_weight(index_t j) const { return raw_weight_.value(j); }
  /// The same of the score divided by the sum over the token's selected experts.
  [[nodiscard]] double renormalised_weight(index_t j) const { return renormalised_weight_.value(j); }
  /// N_ij: tokens that hold both; N_jj = N_j.
  [[nodiscard]] double coactivation(index_t i, index_t j) const { return coactivation_.value(i * experts_ + j); }

  /// Sum over all tokens of p_i p_j: how alike two experts' router columns are.
  [[nodiscard]] double probability_product(index_t i, index_t j) const {
    return product_.value(i > j ? i * experts_ + j : j * experts_ + i);
  }

  /// The fewest tokens that any expert got.
  [[nodiscard]] double coverage() const {
    double fewest = experts_ > 0 ? count(0) : 0.0;
    for (index_t j = 1; j < experts_; ++j) fewest = count(j) < fewest ? count(j) : fewest;
    return fewest;
  }
  /// The experts that no token reached, ascending: their scores say nothing.
  [[nodiscard]] std::vector<index_t> unreached() const {
    std::vector<index_t> result;
    for (index_t j = 0; j < experts_; ++j)
      if (count(j) == 0) result.push_back(j);
    return result;
  }

  template <class Self, class F>
  static void each(Self& self, F&& f) {
    f(self.tokens_);
    f(self.count_);
    f(self.probability_);
    f(self.weight_);
    f(self.raw_weight_);
    f(self.renormalised_weight_);
    f(self.coactivation_);
    f(self.product_);
  }

 private:
  index_t experts_;
  exact_array tokens_, count_, probability_, weight_, raw_weight_, renormalised_weight_, coactivation_, product_;
};

}  // namespace v0
}  // namespace slimtrim
