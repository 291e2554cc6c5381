// Rotary position embedding (Su et al. 2021, arXiv 2104.09864, eq. 34), in the convention of the Hugging Face
// checkpoints: the pairs of a head are (j, j + head_dim / 2), not neighbours.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/executor.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// Cosines and sines of the angles position * theta^(-2j / head_dim) / factor, j < head_dim / 2, a row per token. Angles are
/// rounded to float as the checkpoints' training code did, which is part of the models' meaning at long positions.
class rotary_table {
 public:
  /// Makes the table for these positions; costs nothing when it is the present one.
  void prepare(std::span<index_t const> positions, index_t head_dim, double theta, double factor = 1) {
    expects(head_dim > 0 && head_dim % 2 == 0, "rotary_table", "head_dim: expected an even number");
    if (head_dim == 2 * half_ && theta == theta_ && factor == factor_ &&
        std::equal(positions.begin(), positions.end(), positions_.begin(), positions_.end()))
      return;
    half_ = head_dim / 2;
    theta_ = theta;
    factor_ = factor;
    positions_.assign(positions.begin(), positions.end());
    cosines_.resize(positions.size() * static_cast<std::size_t>(half_));
    sines_.resize(cosines_.size());
    for (index_t j = 0; j < half_; ++j) {
      double const exponent = 2.0 * static_cast<double>(j) / static_cast<double>(head_dim);
      float const frequency = static_cast<float>(1.0 / (std::pow(theta, exponent) * factor));
      for (std::size_t t = 0; t < positions_.size(); ++t) {
        float const angle = static_cast<float>(positions_[t]) * frequency;
        std::size_t const at = t * static_cast<std::size_t>(half_) + static_cast<std::size_t>(j);
        cosines_[at] = static_cast<float>(std::cos(static_cast<double>(angle)));
        sines_[at] = static_cast<float>(std::sin(static_cast<double>(angle)));
      }
    }
  }

  /// Rotates every head of every row in place: (a, b) becomes (a cos - b sin, b cos + a sin).
  /// X: [tokens, heads * head_dim] with contiguous rows, row t at the position prepared for it.
  void rotate(executor* run_on, matrix_view<float> X) const {
    expects_equal(X.extent(0), static_cast<index_t>(positions_.size()), "rotary_table", "rows");
    expects(X.stride(1) == 1 && X.extent(1) % (2 * half_) == 0, "rotary_table",
            "columns: expected whole heads in contiguous rows");
    constexpr index_t rows_a_piece = 32;
    parallel_for(run_on, ceil_div(X.extent(0), rows_a_piece), [&](index_t piece) {
      index_t const last = std::min(X.extent(0), (piece + 1) * rows_a_piece);
      for (index_t t = piece * rows_a_piece; t < last; ++t) {
        float const* const c = cosines_.data() + t * half_;
        float const* const s = sines_.data() + t * half_;
        for (index_t first = 0; first < X.extent(1); first += 2 * half_) {
          float* const a = X.data + t * X.stride(0) + first;
          float* const b = a + half_;
          for (index_t j = 0; j < half_; ++j) {
            float const x = a[j], y = b[j];
            a[j] = x * c[j] - y * s[j];
            b[j] = y * c[j] + x * s[j];
          }
        }
      }
    });
  }

 private:
  index_t half_ = 0;
  double theta_ = 0, factor_ = 1;
  std::vector<index_t> positions_;
  std::vector<float> cosines_, sines_;
};

}  // namespace v0
}  // namespace slimtrim
