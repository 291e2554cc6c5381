#include <slimtrim/core/float8.hpp>
#include <slimtrim/core/random.hpp>
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>

namespace core_float8_test {

using namespace slimtrim;

namespace {

// E4M3 from its definition: bias 7, code 0x7f of either sign is NaN, everything else is finite.
double decode(unsigned code) {
  double const sign = code & 0x80U ? -1.0 : 1.0;
  int const exponent = static_cast<int>((code >> 3) & 15U);
  double const mantissa = static_cast<double>(code & 7U);
  if (exponent == 15 && mantissa == 7) return std::nan("");
  return exponent == 0 ? sign * std::ldexp(mantissa, -9) : sign * std::ldexp(8 + mantissa, exponent - 10);
}

// The nearest of the 127 non-negative values by trying all of them; ties to the even code.
unsigned nearest(double magnitude) {
  unsigned best = 0;
  for (unsigned code = 1; code <= 0x7e; ++code) {
    double const distance = std::abs(decode(code) - magnitude), least = std::abs(decode(best) - magnitude);
    if (distance < least || (distance == least && code % 2 == 0)) best = code;
  }
  return best;
}

void check_rounding(float value) {
  CAPTURE(value);
  unsigned const sign = std::signbit(value) ? 0x80U : 0U;
  REQUIRE(float8_e4m3(value).bits == (sign | nearest(std::abs(static_cast<double>(value)))));
}

}  // namespace

static_assert(sizeof(float8_e4m3) == 1 && sizeof(float8_e8m0) == 1);
static_assert(float8_e4m3(1.0F).bits == 0x38U);

TEST_CASE("e4m3: all 256 codes have the value of the formula and come back") {
  for (unsigned code = 0; code < 256; ++code) {
    float const value = static_cast<float>(float8_e4m3::from_bits(static_cast<std::uint8_t>(code)));
    if (std::isnan(decode(code))) {
      CHECK(std::isnan(value));
      continue;
    }
    CHECK(static_cast<double>(value) == decode(code));
    CHECK(std::signbit(value) == (code >= 0x80U));
    CHECK(float8_e4m3(value).bits == code);
  }
}

TEST_CASE("e4m3: nearest, ties to even, at every midpoint and at random") {
  for (unsigned code = 0; code < 0x7e; ++code) {
    float const tie = static_cast<float>((decode(code) + decode(code + 1)) / 2);
    for (float value : {tie, std::nextafterf(tie, 0.0F), std::nextafterf(tie, INFINITY), -tie}) check_rounding(value);
  }
  for (std::uint64_t i = 0; i < 4000; ++i) {
    // Exponents -12 .. 10 cover everything from below the smallest value to above the largest.
    random_block const block = random_block_at(5, 0, i);
    float const value =
        std::ldexp(static_cast<float>(block.word[0]) * 0x1p-31F, static_cast<int>(block.word[1] % 23) - 12);
    check_rounding(value);
    check_rounding(-value);
  }
}

TEST_CASE("e4m3 saturates finite and infinite values and keeps NaN") {
  CHECK(float8_e4m3(448.0F).bits == 0x7eU);
  CHECK(float8_e4m3(463.9F).bits == 0x7eU);
  CHECK(float8_e4m3(1e30F).bits == 0x7eU);
  CHECK(float8_e4m3(-INFINITY).bits == 0xfeU);
  CHECK((float8_e4m3(NAN).bits & 0x7fU) == 0x7fU);
  CHECK(float8_e4m3(1e-30F).bits == 0x00U);
  CHECK(float8_e4m3(-0.0F).bits == 0x80U);
}

TEST_CASE("e8m0: all codes are powers of two") {
  for (int code = 0; code < 255; ++code)
    CHECK(static_cast<double>(static_cast<float>(float8_e8m0::from_bits(static_cast<std::uint8_t>(code)))) ==
          std::ldexp(1.0, code - 127));
  CHECK(std::isnan(static_cast<float>(float8_e8m0::from_bits(0xff))));
}

}  // namespace core_float8_test
