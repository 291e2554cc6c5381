// A named array of exact sums with an open window, and what every accumulator built from such arrays can do:
// commit or discard the window, merge, and show its arrays to a writer or a reader.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/statistics/exact_sum.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// How two parts of a statistic become one.
enum class combine_by { sum, maximum };

/// Doubles for the window that is open, 128-bit integers for the windows that are done.
class exact_array {
 public:
  exact_array(std::string name, std::vector<index_t> extents, int fraction_bits, combine_by how = combine_by::sum)
      : name_(std::move(name)), extents_(std::move(extents)), fraction_bits_(fraction_bits), how_(how) {
    std::size_t size = 1;
    for (index_t const extent : extents_) {
      expects(extent >= 0, name_.c_str(), "negative extent");
      size *= static_cast<std::size_t>(extent);
    }
    totals_.assign(size, 0);
    window_.assign(size, 0.0);
  }

  [[nodiscard]] std::string const& name() const { return name_; }
  [[nodiscard]] std::span<index_t const> extents() const { return extents_; }
  [[nodiscard]] int fraction_bits() const { return fraction_bits_; }
  [[nodiscard]] combine_by how() const { return how_; }
  [[nodiscard]] std::size_t size() const { return totals_.size(); }

  /// The committed integers: what a statistics file holds. Writable, so that a reader can fill them.
  [[nodiscard]] std::span<int128_t> totals() { return totals_; }
  [[nodiscard]] std::span<int128_t const> totals() const { return totals_; }
  /// The doubles of the open window.
  [[nodiscard]] std::span<double> window() { return window_; }

  void add(index_t i, double value) { window_[static_cast<std::size_t>(i)] += value; }
  /// Adds values[i] to each element. Throws `error` when there are not as many.
  void add_all(std::span<double const> values) {
    expects_equal(static_cast<long long>(values.size()), static_cast<long long>(window_.size()), name_.c_str(),
                  "elements");
    for (std::size_t i = 0; i < window_.size(); ++i) window_[i] += values[i];
  }
  void raise_to(index_t i, double value) {
    double& cell = window_[static_cast<std::size_t>(i)];
    if (!(value <= cell)) cell = value;  // a NaN gets in, and commit reports it
  }

  /// The committed sum (or maximum) as a double, rounded once.
  [[nodiscard]] double value(index_t i) const {
    return from_fixed(totals_[static_cast<std::size_t>(i)], fraction_bits_);
  }
  [[nodiscard]] std::vector<double> values() const {
    std::vector<double> result(totals_.size());
    for (std::size_t i = 0; i < result.size(); ++i) result[i] = from_fixed(totals_[i], fraction_bits_);
    return result;
  }

  /// Rounds each cell of the window once and adds it. Throws `numeric_error` that names the array.
  void commit() {
    for (std::size_t i = 0; i < window_.size(); ++i) {
      if (window_[i] == 0) continue;
      int128_t const part = to_fixed(window_[i], fraction_bits_, name_);
      totals_[i] = how_ == combine_by::sum ? add_fixed(totals_[i], part, name_) : std::max(totals_[i], part);
      window_[i] = 0;
    }
  }
  void discard() { std::fill(window_.begin(), window_.end(), 0.0); }

  /// Throws `error` unless `other` is the same quantity of the same shape and scale.
  void check_same_kind(exact_array const& other) const {
    expects(other.name_ == name_ && other.extents_ == extents_ && other.fraction_bits_ == fraction_bits_ &&
                other.how_ == how_,
            name_.c_str(), "the statistics to merge have another shape or scale");
  }
  void merge(exact_array const& other) {
    check_same_kind(other);
    for (std::size_t i = 0; i < totals_.size(); ++i)
      totals_[i] = how_ == combine_by::sum ? add_fixed(totals_[i], other.totals_[i], name_)
                                           : std::max(totals_[i], other.totals_[i]);
  }

 private:
  std::string name_;
  std::vector<index_t> extents_;
  int fraction_bits_;
  combine_by how_;
  std::vector<int128_t> totals_;
  std::vector<double> window_;
};

/// Base of an accumulator whose whole state is exact arrays. `Derived` has
/// `template <class Self, class F> static void each(Self& self, F&& f)`, which calls `f` on each array in a fixed
/// order.
///
/// An engine adds what a window of tokens gives, then commits it; a window abandoned half-way is discarded. A window
/// is the unit of rounding: parts of whole windows merge to the bits of the whole.
template <class Derived>
class accumulator {
 public:
  /// Calls f(exact_array&) on every array: the way to write or to fill a statistics file.
  template <class F>
  void visit(F&& f) {
    Derived::each(static_cast<Derived&>(*this), f);
  }
  template <class F>
  void visit(F&& f) const {
    Derived::each(static_cast<Derived const&>(*this), f);
  }

  void commit_window() {
    visit([](exact_array& array) { array.commit(); });
  }
  void discard_window() {
    visit([](exact_array& array) { array.discard(); });
  }

  /// Adds the committed windows of `other`. Throws `error` (and changes nothing) when shapes differ.
  void merge(Derived const& other) {
    std::vector<exact_array const*> parts;
    other.visit([&](exact_array const& array) { parts.push_back(&array); });
    std::vector<exact_array*> mine;
    visit([&](exact_array& array) { mine.push_back(&array); });
    expects_equal(static_cast<long long>(parts.size()), static_cast<long long>(mine.size()), "merge",
                  "number of quantities");
    for (std::size_t i = 0; i < mine.size(); ++i) mine[i]->check_same_kind(*parts[i]);
    for (std::size_t i = 0; i < mine.size(); ++i) mine[i]->merge(*parts[i]);
  }

 protected:
  accumulator() = default;
};

}  // namespace v0
}  // namespace slimtrim
