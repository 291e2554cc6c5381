#include <slimtrim/simd/target/attend.hpp>
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace simd_target_attend_test {

using namespace slimtrim;
namespace target = slimtrim::simd::HWY_NAMESPACE;

TEST_CASE("exp of what is not positive is within 4e-7 of itself, and never zero") {
  float in[target::lanes], out[target::lanes];
  double worst = 0;
  for (int i = 0; i < 4000; ++i) {
    for (int lane = 0; lane < target::lanes; ++lane)
      in[lane] = -0.021F * static_cast<float>(i) - 0.001F * static_cast<float>(lane);
    target::store(target::exp_of_negative(target::load(static_cast<float const*>(in))), out);
    for (int lane = 0; lane < target::lanes; ++lane) {
      double const expected = std::exp(static_cast<double>(in[lane]));
      worst = std::max(worst, std::fabs(static_cast<double>(out[lane]) - expected) / expected);
    }
  }
  CHECK(worst < 4e-7);
  for (float& each : in) each = -1e30F;
  target::store(target::exp_of_negative(target::load(static_cast<float const*>(in))), out);
  CHECK((out[0] > 0 && out[0] < 2e-38F));
}

TEST_CASE("the softmax of equal scores is even, what is beyond the rows weighs nothing") {
  for (index_t rows : {1, 7, 16, 17, 40}) {
    std::vector<float> scores(48, 99.0F);
    for (index_t j = 0; j < rows; ++j) scores[static_cast<std::size_t>(j)] = -3.5F;
    CHECK(target::soften(scores.data(), rows) == static_cast<float>(rows));
    for (index_t j = 0; j < round_up(rows, simd::key_positions); ++j)
      CHECK(scores[static_cast<std::size_t>(j)] == (j < rows ? 1.0F : 0.0F));
  }
}

}  // namespace simd_target_attend_test
