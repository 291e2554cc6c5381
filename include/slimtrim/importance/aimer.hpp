// AIMER: a criterion from the weights alone, in one pass over them.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/importance/criterion.hpp>

#include <cmath>

namespace slimtrim {
inline namespace v0 {

/// S_j = -mean|w| / rms(w) over all elements of the expert's gate, up and down projections.
///
/// arXiv 2603.18492. There the quotient itself is the score and the highest is removed; the sign is turned here so that
/// low = remove holds for every criterion. In [-1, 0]; an expert whose weights are spread evenly (quotient near 1) goes
/// first, one with few large weights stays. No unit: layers are comparable. An empty or all-zero expert scores -1.
/// Sums in double, in storage order. Feed the matrices of one expert in any order, one after another.
class aimer_importance {
 public:
  static constexpr need needs = need::weights;

  /// Adds a weight matrix: anything with `extent(d)` and elements `W(row, column)` that convert to float: dense,
  /// quantised or masked views in host memory. Throws `numeric_error` on NaN or infinity.
  template <class Weight>
  void add(Weight const& weight) {
    for (index_t r = 0; r < weight.extent(0); ++r) {
      double sum = 0, square = 0;
      for (index_t c = 0; c < weight.extent(1); ++c) {
        double const value = static_cast<double>(static_cast<float>(weight(r, c)));
        sum += std::fabs(value);
        square += value * value;
      }
      if (!std::isfinite(square)) throw numeric_error("aimer: weight: expected finite elements");
      magnitude_ += sum;
      square_ += square;
    }
    count_ += static_cast<double>(weight.extent(0)) * static_cast<double>(weight.extent(1));
  }

  [[nodiscard]] double score() const {
    if (square_ == 0) return -1;
    return -(magnitude_ / count_) / std::sqrt(square_ / count_);
  }

 private:
  double magnitude_ = 0, square_ = 0, count_ = 0;
};

}  // namespace v0
}  // namespace slimtrim
