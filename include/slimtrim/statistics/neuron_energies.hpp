// Energy of each intermediate neuron of each expert: what dropping that neuron takes away.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/statistics/exact_array.hpp>

#include <algorithm>
#include <span>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What `neuron_energies` sums, of some tokens, added up elsewhere.
struct neuron_sums {
  std::vector<double> weighted, plain;  // [experts, width]
};

/// Sums over routed tokens of (g h_k)^2 and h_k^2; h = act(gate x) * (up x) is the input of the down projection and g
/// the weight that the model multiplies with. Memory 48 experts * width bytes.
/// Neurons are spread over the backend's executor, each added in token order.
class neuron_energies : public accumulator<neuron_energies> {
 public:
  neuron_energies(index_t experts, index_t width)
      : experts_(experts),
        width_(width),
        weighted_("neurons.weighted_square", {experts, width}, fixed_point_scale::magnitudes),
        plain_("neurons.square", {experts, width}, fixed_point_scale::magnitudes) {}

  /// Adds one expert's hidden activations of the open window. activations: [n, width]; weights: [n].
  template <host_backend B>
  void add(B const& backend, index_t expert, matrix_view<float const> activations, std::span<float const> weights) {
    expects(expert >= 0 && expert < experts_, "neuron_energies",
            "expert: expected an index below the number of experts");
    expects_equal(activations.extent(1), width_, "neuron_energies", "columns of activations");
    expects_equal(static_cast<long long>(weights.size()), activations.extent(0), "neuron_energies",
                  "length of weights");
    double* const weighted = weighted_.window().data() + expert * width_;
    double* const plain = plain_.window().data() + expert * width_;
    constexpr index_t neurons_a_piece = 512;
    parallel_for(backend.run_on(), ceil_div(width_, neurons_a_piece), [&](index_t piece) {
      index_t const first = piece * neurons_a_piece, last = std::min(width_, first + neurons_a_piece);
      for (index_t i = 0; i < activations.extent(0); ++i) {
        double const g = static_cast<double>(weights[static_cast<std::size_t>(i)]);
        for (index_t k = first; k < last; ++k) {
          double const h = static_cast<double>(activations(i, k));
          plain[k] += h * h;
          weighted[k] += g * g * (h * h);
        }
      }
    });
  }

  /// Adds what was summed elsewhere to an open window. Throws `error` when it is of other extents.
  void add(neuron_sums const& sums) {
    weighted_.add_all(sums.weighted);
    plain_.add_all(sums.plain);
  }

  [[nodiscard]] index_t experts() const { return experts_; }
  [[nodiscard]] index_t width() const { return width_; }
  /// Sum of (g h_k)^2.
  [[nodiscard]] double weighted(index_t expert, index_t k) const { return weighted_.value(expert * width_ + k); }
  /// Sum of h_k^2.
  [[nodiscard]] double plain(index_t expert, index_t k) const { return plain_.value(expert * width_ + k); }

  template <class Self, class F>
  static void each(Self& self, F&& f) {
    f(self.weighted_);
    f(self.plain_);
  }

 private:
  index_t experts_, width_;
  exact_array weighted_, plain_;
};

}  // namespace v0
}  // namespace slimtrim
