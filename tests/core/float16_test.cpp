#include <slimtrim/core/float16.hpp>
#include <slimtrim/core/random.hpp>
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <type_traits>
#include <vector>

namespace core_float16_test {

using namespace slimtrim;

namespace {

// The value of a code from the definition of a binary format, by powers of two in double.
double decode(unsigned code, int exponent_bits, int mantissa_bits) {
  double const sign = (code >> (exponent_bits + mantissa_bits)) & 1U ? -1.0 : 1.0;
  int const exponent = static_cast<int>((code >> mantissa_bits) & ((1U << exponent_bits) - 1));
  unsigned const mantissa = code & ((1U << mantissa_bits) - 1);
  int const bias = (1 << (exponent_bits - 1)) - 1;
  if (exponent == (1 << exponent_bits) - 1)
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(static_cast<double>(mantissa), 1 - bias - mantissa_bits);
  return sign * std::ldexp(static_cast<double>((1U << mantissa_bits) + mantissa), exponent - bias - mantissa_bits);
}

// The code nearest to a finite magnitude by search over the sorted non-negative codes; ties to the even code. The
// midpoint above the largest finite code belongs to infinity, which has the next (even) code in both formats.
unsigned nearest(double magnitude, int exponent_bits, int mantissa_bits) {
  unsigned const infinity = ((1U << exponent_bits) - 1) << mantissa_bits;
  unsigned low = 0, high = infinity;
  while (high - low > 1) {
    unsigned const middle = (low + high) / 2;
    (decode(middle, exponent_bits, mantissa_bits) <= magnitude ? low : high) = middle;
  }
  double const below = decode(low, exponent_bits, mantissa_bits);
  // One step above the largest finite value lies where the next binade would begin.
  double const above = high == infinity ? 2 * below - decode(low - 1, exponent_bits, mantissa_bits)
                                        : decode(high, exponent_bits, mantissa_bits);
  double const to_low = magnitude - below, to_high = above - magnitude;
  if (to_low != to_high) return to_low < to_high ? low : high;
  return low % 2 == 0 ? low : high;
}

template <class Half>
void check_all_codes(int exponent_bits, int mantissa_bits) {
  for (unsigned code = 0; code < 65536; ++code) {
    auto const half = Half::from_bits(static_cast<std::uint16_t>(code));
    float const value = static_cast<float>(half);
    double const expected = decode(code, exponent_bits, mantissa_bits);
    if (std::isnan(expected)) {
      REQUIRE(std::isnan(value));
      REQUIRE(std::isnan(static_cast<float>(Half(value))));
      continue;
    }
    REQUIRE(static_cast<double>(value) == expected);
    REQUIRE(std::signbit(value) == ((code & 0x8000U) != 0));
    REQUIRE(Half(value).bits == code);
  }
}

template <class Half>
void check_rounding(float value, int exponent_bits, int mantissa_bits) {
  unsigned const sign = std::signbit(value) ? 0x8000U : 0U;
  CAPTURE(value);
  REQUIRE(Half(value).bits == (sign | nearest(std::abs(static_cast<double>(value)), exponent_bits, mantissa_bits)));
}

// Every midpoint between neighbouring codes, and the floats on both sides of it.
template <class Half>
void check_midpoints(int exponent_bits, int mantissa_bits) {
  unsigned const infinity = ((1U << exponent_bits) - 1) << mantissa_bits;
  for (unsigned code = 0; code + 1 < infinity; ++code) {
    double const middle =
        (decode(code, exponent_bits, mantissa_bits) + decode(code + 1, exponent_bits, mantissa_bits)) / 2;
    float const tie = static_cast<float>(middle);
    for (float value : {tie, std::nextafterf(tie, 0.0F), std::nextafterf(tie, INFINITY), -tie})
      check_rounding<Half>(value, exponent_bits, mantissa_bits);
  }
}

template <class Half>
void check_random_floats(int exponent_bits, int mantissa_bits) {
  for (std::uint64_t i = 0; i < 50000; ++i) {
    float const value = bits_as<float>(random_block_at(11, 0, i).word[0]);
    if (std::isfinite(value)) check_rounding<Half>(value, exponent_bits, mantissa_bits);
  }
}

}  // namespace

static_assert(sizeof(bfloat16) == 2 && sizeof(float16) == 2);
static_assert(std::is_trivially_copyable_v<bfloat16> && std::is_trivially_copyable_v<float16>);
static_assert(std::is_trivially_default_constructible_v<bfloat16> &&
              std::is_trivially_default_constructible_v<float16>);
static_assert(!std::is_convertible_v<float, bfloat16> && !std::is_convertible_v<bfloat16, float>);
static_assert(float16(1.0F).bits == 0x3c00U && bfloat16(1.0F).bits == 0x3f80U);

TEST_CASE("float16: all 65536 codes have the value of the formula and come back") { check_all_codes<float16>(5, 10); }
TEST_CASE("bfloat16: all 65536 codes have the value of the formula and come back") { check_all_codes<bfloat16>(8, 7); }

TEST_CASE("float16: nearest, ties to even, at every midpoint and at random") {
  check_midpoints<float16>(5, 10);
  check_random_floats<float16>(5, 10);
}
TEST_CASE("bfloat16: nearest, ties to even, at every midpoint and at random") {
  check_midpoints<bfloat16>(8, 7);
  check_random_floats<bfloat16>(8, 7);
}

TEST_CASE("overflow goes to infinity and the edge rounds down") {
  CHECK(float16(65504.0F).bits == 0x7bffU);
  CHECK(float16(65519.996F).bits == 0x7bffU);
  CHECK(float16(65520.0F).bits == 0x7c00U);
  CHECK(float16(-1e30F).bits == 0xfc00U);
  CHECK(float16(INFINITY).bits == 0x7c00U);
  CHECK(bfloat16(std::numeric_limits<float>::max()).bits == 0x7f80U);
  CHECK(bfloat16(-INFINITY).bits == 0xff80U);
}

TEST_CASE("a NaN stays a quiet NaN of its sign whatever its payload") {
  for (std::uint32_t payload : {1U, 0x1fffU, 0xffffU, 0x400000U, 0x7fffffU})
    for (std::uint32_t sign : {0U, 0x80000000U}) {
      float const nan = bits_as<float>(sign | 0x7f800000U | payload);
      CHECK((float16(nan).bits & 0x7e00U) == 0x7e00U);
      CHECK((bfloat16(nan).bits & 0x7fc0U) == 0x7fc0U);
      CHECK((float16(nan).bits >> 15) == sign >> 31);
      CHECK((bfloat16(nan).bits >> 15) == sign >> 31);
    }
}

TEST_CASE("equality compares values") {
  CHECK(float16(0.0F) == float16(-0.0F));
  CHECK(bfloat16(0.0F) == bfloat16(-0.0F));
  CHECK_FALSE(float16(NAN) == float16(NAN));
  CHECK_FALSE(bfloat16(1.0F) == bfloat16(2.0F));
}

}  // namespace core_float16_test
