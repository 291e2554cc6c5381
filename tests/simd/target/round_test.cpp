#include <slimtrim/core/random.hpp>
#include <slimtrim/simd/target/round.hpp>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace simd_target_round_test {

using namespace slimtrim;
namespace target = slimtrim::simd::HWY_NAMESPACE;

TEST_CASE("codes are the nearest whole numbers, ties to even, of x over the block's largest over 127") {
  float x[32] = {127, -127, 0.5F, 1.5F, 2.5F, -0.5F, -1.5F, 63.49F, 63.51F};
  std::int8_t codes[32];
  float scale = 0;
  std::int32_t sum = 0;
  int const expected[9] = {127, -127, 0, 2, 2, 0, -2, 63, 64};
  CHECK(target::round_row(x, 32, simd::element_kind::codes8, codes, &scale, &sum) == -1);
  CHECK(scale == 1.0F);
  CHECK(sum == 127 - 127 + 2 + 2 - 2 + 63 + 64);
  for (int i = 0; i < 32; ++i) CHECK(codes[i] == (i < 9 ? expected[i] : 0));
  // Columns 0 2 4 6 1 3 5 7 of every eight.
  CHECK(target::round_row(x, 32, simd::element_kind::codes4, codes, &scale, &sum) == -1);
  int const order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  for (int i = 0; i < 32; ++i) {
    int const column = i / 8 * 8 + order[i % 8];
    CHECK(codes[i] == (column < 9 ? expected[column] : 0));
  }
}

TEST_CASE("a last block that is not whole counts zeros, subnormals round to zero, what is not finite is found") {
  std::vector<float> x(70, 1e-39F);
  x[64] = 2, x[69] = -1;
  std::vector<std::int8_t> codes(96);
  float scales[3];
  std::int32_t sums[3];
  CHECK(target::round_row(x.data(), 70, simd::element_kind::codes8, codes.data(), scales, sums) == -1);
  CHECK(std::all_of(codes.begin(), codes.begin() + 64, [](std::int8_t c) { return c == 0; }));
  CHECK((scales[0] == 0.0F && scales[1] == 0.0F && scales[2] == 2.0F / 127));
  CHECK(sums[2] == 127 - 64);  // -63.5 ties to even
  CHECK(std::all_of(codes.begin() + 70, codes.end(), [](std::int8_t c) { return c == 0; }));
  for (float const bad : {std::nanf(""), -std::nanf(""), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    x[33] = bad;
    CHECK(target::round_row(x.data(), 70, simd::element_kind::codes8, codes.data(), scales, sums) == 1);
  }
  CHECK(target::round_row(x.data(), 0, simd::element_kind::codes8, codes.data(), scales, sums) == -1);
}

}  // namespace simd_target_round_test
