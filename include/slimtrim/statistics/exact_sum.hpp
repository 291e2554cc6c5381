// Sums that do not depend on the order of their parts: fixed-point integers of 128 bits.
//
// A window's contribution is a double, rounded once to a multiple of 2^-fraction_bits; from there on only integers are
// added, which is associative. So statistics of parts, merged in any order, equal those of the whole bit for bit.
#pragma once

#include <slimtrim/core/config.hpp>
#include <slimtrim/core/error.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

namespace slimtrim {
inline namespace v0 {

__extension__ typedef __int128 int128_t;

/// The documented scale of a quantity: the sum is stored as an integer multiple of 2^-bits.
///
/// | kind       | step   | largest sum | for                                                        |
/// |------------|--------|-------------|------------------------------------------------------------|
/// | counts     | 1      | 1.7e38      | tokens, routed tokens, co-activations                      |
/// | ratios     | 2^-80  | 1.4e14      | probabilities, gate weights, cosines                       |
/// | magnitudes | 2^-64  | 9.2e18      | norms, squares, products of norms, channel sums            |
struct fixed_point_scale {
  static constexpr int counts = 0;
  static constexpr int ratios = 80;
  static constexpr int magnitudes = 64;
};

/// round(value * 2^fraction_bits), ties to even. Throws `numeric_error` that names `quantity` when value is not finite
/// or does not fit.
[[nodiscard]] inline int128_t to_fixed(double value, int fraction_bits, std::string_view quantity) {
  if (value == 0) return 0;
  auto const bits = bits_as<std::uint64_t>(value);
  int const biased = static_cast<int>((bits >> 52) & 0x7ffU);
  if (biased == 0x7ff) throw numeric_error(std::string(quantity) + ": expected a finite contribution");
  // |value| = mantissa * 2^exponent
  std::uint64_t mantissa = bits & 0xfffffffffffffULL;
  if (biased != 0) mantissa |= std::uint64_t{1} << 52;
  int const shift = (biased == 0 ? 1 : biased) - 1075 + fraction_bits;
  int128_t magnitude = 0;
  if (shift >= 0) {
    if (shift > 127 - 54)
      throw numeric_error(std::string(quantity) + ": the contribution does not fit its fixed-point scale");
    magnitude = static_cast<int128_t>(mantissa) << shift;
  } else if (shift > -64) {
    std::uint64_t const whole = mantissa >> -shift, rest = mantissa & ((std::uint64_t{1} << -shift) - 1);
    std::uint64_t const half = std::uint64_t{1} << (-shift - 1);
    magnitude = static_cast<int128_t>(whole + (rest > half || (rest == half && (whole & 1U) != 0) ? 1U : 0U));
  }
  return (bits >> 63) != 0 ? -magnitude : magnitude;
}

/// fixed * 2^-fraction_bits, rounded once.
[[nodiscard]] inline double from_fixed(int128_t fixed, int fraction_bits) {
  return std::ldexp(static_cast<double>(fixed), -fraction_bits);
}

/// a + b. Throws `numeric_error` that names `quantity` on overflow.
[[nodiscard]] inline int128_t add_fixed(int128_t a, int128_t b, std::string_view quantity) {
  int128_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum))
    throw numeric_error(std::string(quantity) + ": the sum left its fixed-point range");
  return sum;
}

/// One exact sum of doubles, each rounded to a multiple of 2^-fraction_bits.
class exact_sum {
 public:
  explicit exact_sum(int fraction_bits) : fraction_bits_(fraction_bits) {}
  void add(double value) { total_ = add_fixed(total_, to_fixed(value, fraction_bits_, "exact_sum"), "exact_sum"); }
  void merge(exact_sum const& other) {
    expects_equal(other.fraction_bits_, fraction_bits_, "exact_sum", "fraction bits");
    total_ = add_fixed(total_, other.total_, "exact_sum");
  }
  [[nodiscard]] double value() const { return from_fixed(total_, fraction_bits_); }
  [[nodiscard]] int128_t total() const { return total_; }

 private:
  int fraction_bits_;
  int128_t total_ = 0;
};

}  // namespace v0
}  // namespace slimtrim
