#include <slimtrim/simd/target/quantize.hpp>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace simd_target_quantize_test {

using namespace slimtrim;
namespace target = slimtrim::simd::HWY_NAMESPACE;

TEST_CASE("codes go from 0 to 15 around 8, ties to even, eight to a word with the first lowest") {
  float w[32] = {-100, -8, -7.5F, -0.5F, 0, 0.5F, 1.5F, 100, 7, 6.5F};
  std::uint32_t words[4];
  target::encode_block<false>(static_cast<float const*>(w), target::divisor(1.0F), words);
  CHECK(words[0] == 0xfa888000U);
  CHECK(words[1] == 0x888888efU);
  CHECK(words[2] == 0x88888888U);
  target::encode_block<false>(static_cast<float const*>(w), target::divisor(100.0F), words);
  CHECK(words[0] == 0x98888887U);
}

TEST_CASE("the inverse divides as division does wherever that decides a code") {
  if (!target::fused_multiply_add) return;
  // Quotients on and beside halves, for scales all over the range; those of floats below 2^-100 are divided.
  std::uint64_t state = 1;
  auto const next = [&state] { return static_cast<std::uint32_t>((state = state * 6364136223846793005U + 1442695040888963407U) >> 32); };
  for (int i = 0; i < 20000; ++i) {
    int const power = static_cast<int>(next() % 201) - 100;
    float const scale = std::min(std::ldexp(1 + static_cast<float>(next() >> 8) * 0x1p-24F, power), 0x1p100F);
    float w[32];
    for (float& each : w) {
      std::uint32_t const kind = next() % 4;
      float const half = (static_cast<float>(next() % 40) - 20) / 2;
      each = kind == 0 ? std::ldexp(static_cast<float>(next()) * 0x1p-32F - 0.5F, power + 5) : half * scale;
      if (kind == 1) each = std::nextafter(each, 0.0F);
      if (kind == 2) each = std::nextafter(each, 1e38F);
    }
    w[31] = 0x1p26F * scale;
    std::uint32_t exact[4], quick[4];
    target::encode_block<false>(static_cast<float const*>(w), target::divisor(scale), exact);
    target::encode_block<true>(static_cast<float const*>(w), target::divisor(scale), quick);
    for (int k = 0; k < 4; ++k) REQUIRE(exact[k] == quick[k]);
  }
}

TEST_CASE("the largest magnitude is that of either sign, and what is not finite is above all") {
  float w[64] = {};
  w[40] = -3;
  w[10] = 2;
  CHECK(target::group_largest(static_cast<float const*>(w), 32) == bits_as<std::uint32_t>(2.0F));
  CHECK(target::group_largest(static_cast<float const*>(w), 64) == bits_as<std::uint32_t>(3.0F));
  for (float const bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    w[63] = bad;
    CHECK(target::group_largest(static_cast<float const*>(w), 64) >= 0x7f800000U);
  }
}

}  // namespace simd_target_quantize_test
