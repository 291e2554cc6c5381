// Mean and variance of each expert's output, channel by channel: what replaces an expert (MoNE) and what tells which
// experts do the same (HC-SMoE, REAM).
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/statistics/exact_array.hpp>

#include <algorithm>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What `expert_outputs` sums, of some tokens, added up elsewhere.
struct expert_output_sums {
  std::vector<double> count;        // [experts]
  std::vector<double> sum, square;  // [experts, hidden]
};

/// Sums of f and f^2 over the tokens routed to each expert; f: the output before the gate.
/// Memory 48 experts * hidden bytes. Channels are spread over the backend's executor, each added in token order.
class expert_outputs : public accumulator<expert_outputs> {
 public:
  expert_outputs(index_t experts, index_t hidden)
      : experts_(experts),
        hidden_(hidden),
        count_("outputs.count", {experts}, fixed_point_scale::counts),
        sum_("outputs.sum", {experts, hidden}, fixed_point_scale::magnitudes),
        square_("outputs.square", {experts, hidden}, fixed_point_scale::magnitudes) {}

  /// Adds one expert's outputs of the open window. outputs: [n, hidden].
  template <host_backend B>
  void add(B const& backend, index_t expert, matrix_view<float const> outputs) {
    expects(expert >= 0 && expert < experts_, "expert_outputs",
            "expert: expected an index below the number of experts");
    expects_equal(outputs.extent(1), hidden_, "expert_outputs", "columns of outputs");
    count_.add(expert, static_cast<double>(outputs.extent(0)));
    double* const sums = sum_.window().data() + expert * hidden_;
    double* const squares = square_.window().data() + expert * hidden_;
    constexpr index_t channels_a_piece = 512;
    parallel_for(backend.run_on(), ceil_div(hidden_, channels_a_piece), [&](index_t piece) {
      index_t const first = piece * channels_a_piece, last = std::min(hidden_, first + channels_a_piece);
      for (index_t i = 0; i < outputs.extent(0); ++i)
        for (index_t c = first; c < last; ++c) {
          double const value = static_cast<double>(outputs(i, c));
          sums[c] += value;
          squares[c] += value * value;
        }
    });
  }

  /// Adds what was summed elsewhere to an open window. Throws `error` when it is of other extents.
  void add(expert_output_sums const& sums) {
    count_.add_all(sums.count);
    sum_.add_all(sums.sum);
    square_.add_all(sums.square);
  }

  [[nodiscard]] index_t experts() const { return experts_; }
  [[nodiscard]] index_t hidden() const { return hidden_; }
  [[nodiscard]] double count(index_t expert) const { return count_.value(expert); }
  /// mu: [hidden], zero for an expert that no token reached.
  [[nodiscard]] std::vector<double> mean(index_t expert) const {
    std::vector<double> result(static_cast<std::size_t>(hidden_), 0.0);
    double const n = count(expert);
    if (n > 0)
      for (index_t c = 0; c < hidden_; ++c) result[static_cast<std::size_t>(c)] = sum_.value(expert * hidden_ + c) / n;
    return result;
  }
  /// sigma^2 = E f^2 - mu^2, not below 0: [hidden].
  [[nodiscard]] std::vector<double> variance(index_t expert) const {
    std::vector<double> result = mean(expert);
    double const n = count(expert);
    for (index_t c = 0; c < hidden_; ++c) {
      double& value = result[static_cast<std::size_t>(c)];
      value = n > 0 ? std::max(0.0, square_.value(expert * hidden_ + c) / n - value * value) : 0.0;
    }
    return result;
  }

  template <class Self, class F>
  static void each(Self& self, F&& f) {
    f(self.count_);
    f(self.sum_);
    f(self.square_);
  }

 private:
  index_t experts_, hidden_;
  exact_array count_, sum_, square_;
};

}  // namespace v0
}  // namespace slimtrim
