#include <slimtrim/core/random.hpp>
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <set>

namespace core_random_test {

using namespace slimtrim;

namespace {

void check_block(random_block const& found, std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  CHECK(found.word[0] == a);
  CHECK(found.word[1] == b);
  CHECK(found.word[2] == c);
  CHECK(found.word[3] == d);
}

}  // namespace

// The three vectors for philox4x32 with 10 rounds of the Random123 distribution's known-answer file; the counter is
// (index low, index high, stream low, stream high), the key (seed low, seed high).
TEST_CASE("the block function is Philox4x32-10") {
  check_block(random_block_at(0, 0, 0), 0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U);
  check_block(random_block_at(UINT64_MAX, UINT64_MAX, UINT64_MAX), 0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU);
  check_block(random_block_at(0x299f31d0a4093822U, 0x0370734413198a2eU, 0x85a308d3243f6a88U), 0xd16cfe09U, 0x94fdccebU,
              0x5001e420U, 0x24126ea1U);
}

TEST_CASE("seed, stream and index each matter") {
  std::set<std::uint64_t> seen;
  for (std::uint64_t seed : {0U, 1U, 2U})
    for (std::uint64_t stream : {0U, 1U, 2U})
      for (std::uint64_t index : {0U, 1U, 2U}) seen.insert(random_bits_at(seed, stream, index));
  CHECK(seen.size() == 27);
}

TEST_CASE("64 bits are the first two words, low word first") {
  CHECK(random_bits_at(0, 0, 0) == 0xe169c58d6627e8d5U);
  static_assert(random_bits_at(0, 0, 0) == 0xe169c58d6627e8d5U);
}

TEST_CASE("uniform_at lies in [0, 1) with the moments of a uniform variable") {
  constexpr int n = 100000;
  double sum = 0, squares = 0;
  for (std::uint64_t i = 0; i < n; ++i) {
    double const u = uniform_at(7, 1, i);
    REQUIRE(u >= 0.0);
    REQUIRE(u < 1.0);
    sum += u;
    squares += u * u;
  }
  // Five standard errors: sd(u) = 0.289, sd(u^2) = 0.298.
  CHECK(std::abs(sum / n - 0.5) < 5 * 0.289 / std::sqrt(n));
  CHECK(std::abs(squares / n - 1.0 / 3) < 5 * 0.298 / std::sqrt(n));
}

TEST_CASE("normal_at is finite with the moments of a standard normal variable") {
  constexpr int n = 100000;
  double sum = 0, squares = 0, fourth = 0;
  for (std::uint64_t i = 0; i < n; ++i) {
    double const z = normal_at(7, 2, i);
    REQUIRE(std::isfinite(z));
    // u >= 2^-32 bounds |z| by sqrt(64 ln 2).
    REQUIRE(std::abs(z) <= 6.67);
    sum += z;
    squares += z * z;
    fourth += z * z * z * z;
  }
  // Five standard errors: sd(z) = 1, sd(z^2) = sqrt(2), sd(z^4) = sqrt(96).
  CHECK(std::abs(sum / n) < 5 / std::sqrt(n));
  CHECK(std::abs(squares / n - 1) < 5 * std::sqrt(2.0) / std::sqrt(n));
  CHECK(std::abs(fourth / n - 3) < 5 * std::sqrt(96.0) / std::sqrt(n));
}

}  // namespace core_random_test
