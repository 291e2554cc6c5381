#include <slimtrim/simd/target/quantize.hpp>
#include <doctest/doctest.h>

#include <limits>

namespace simd_target_quantize_test {

using namespace slimtrim;
namespace target = slimtrim::simd::HWY_NAMESPACE;

TEST_CASE("codes go from 0 to 15 around 8, ties to even, eight to a word with the first lowest") {
  float w[32] = {-100, -8, -7.5F, -0.5F, 0, 0.5F, 1.5F, 100, 7, 6.5F};
  std::uint32_t words[4];
  target::encode_block(static_cast<float const*>(w), target::broadcast(1.0F), words);
  CHECK(words[0] == 0xfa888000U);
  CHECK(words[1] == 0x888888efU);
  CHECK(words[2] == 0x88888888U);
  target::encode_block(static_cast<float const*>(w), target::broadcast(100.0F), words);
  CHECK(words[0] == 0x98888887U);
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
