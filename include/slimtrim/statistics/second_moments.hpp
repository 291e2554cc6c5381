// Per-channel moments of the inputs of a linear map: what Wanda, AWQ and importance-weighted rounding need.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/statistics/exact_array.hpp>

#include <algorithm>
#include <cmath>
#include <string>

namespace slimtrim {
inline namespace v0 {

/// Sums over rows of x_c^2 and |x_c| for `groups` inputs (one for attention, one an expert for down projections) of
/// `channels` channels. Memory 48 groups * channels bytes. Channels are spread over the backend's executor, each added
/// in row order. `name` is the prefix of the arrays' names.
class second_moments : public accumulator<second_moments> {
 public:
  second_moments(std::string const& name, index_t groups, index_t channels)
      : groups_(groups),
        channels_(channels),
        count_(name + ".count", {groups}, fixed_point_scale::counts),
        square_(name + ".square", {groups, channels}, fixed_point_scale::magnitudes),
        magnitude_(name + ".magnitude", {groups, channels}, fixed_point_scale::magnitudes) {}

  /// Adds inputs of the open window. inputs: [n, channels].
  template <host_backend B>
  void add(B const& backend, index_t group, matrix_view<float const> inputs) {
    expects(group >= 0 && group < groups_, "second_moments", "group: expected an index below the number of groups");
    expects_equal(inputs.extent(1), channels_, "second_moments", "columns of inputs");
    count_.add(group, static_cast<double>(inputs.extent(0)));
    double* const squares = square_.window().data() + group * channels_;
    double* const magnitudes = magnitude_.window().data() + group * channels_;
    constexpr index_t channels_a_piece = 512;
    parallel_for(backend.run_on(), ceil_div(channels_, channels_a_piece), [&](index_t piece) {
      index_t const first = piece * channels_a_piece, last = std::min(channels_, first + channels_a_piece);
      for (index_t i = 0; i < inputs.extent(0); ++i)
        for (index_t c = first; c < last; ++c) {
          double const value = static_cast<double>(inputs(i, c));
          squares[c] += value * value;
          magnitudes[c] += std::fabs(value);
        }
    });
  }

  [[nodiscard]] index_t groups() const { return groups_; }
  [[nodiscard]] index_t channels() const { return channels_; }
  /// Rows that went into a group.
  [[nodiscard]] double count(index_t group) const { return count_.value(group); }
  /// Mean of x_c^2; 0 for a group without rows.
  [[nodiscard]] double mean_square(index_t group, index_t channel) const { return mean(square_, group, channel); }
  /// Mean of |x_c|; 0 for a group without rows.
  [[nodiscard]] double mean_magnitude(index_t group, index_t channel) const { return mean(magnitude_, group, channel); }

  template <class Self, class F>
  static void each(Self& self, F&& f) {
    f(self.count_);
    f(self.square_);
    f(self.magnitude_);
  }

 private:
  [[nodiscard]] double mean(exact_array const& sum, index_t group, index_t channel) const {
    double const n = count(group);
    return n > 0 ? sum.value(group * channels_ + channel) / n : 0.0;
  }

  index_t groups_, channels_;
  exact_array count_, square_, magnitude_;
};

}  // namespace v0
}  // namespace slimtrim
