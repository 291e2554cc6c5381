#include <slimtrim/slim/quantize/scale.hpp>

#include <doctest/doctest.h>

namespace slim_quantize_scale_test {

using namespace slimtrim;

TEST_CASE("a scale takes only values of its storage type") {
  CHECK(round_scale(0.1, scale_type::float32, 3) == 0.1F);
  CHECK(round_scale(0.1, scale_type::bfloat16, 3) == 0.10009765625F);
  CHECK(round_scale(0.1, scale_type::float16, 3) == 0.0999755859375F);
}

TEST_CASE("an all-zero group has scale one, a subnormal one the smallest normal scale") {
  CHECK(round_scale(0.0, scale_type::bfloat16, 3) == 1.0F);
  CHECK(round_scale(1e-45, scale_type::float32, 3) == 0x1.0p-126F);
  CHECK(round_scale(1e-12, scale_type::float16, 3) == 0x1.0p-24F);
}

TEST_CASE("the largest code times the largest scale is finite") {
  for (int bits = 0; bits <= 8; ++bits) {
    float const s = round_scale(1e300, scale_type::bfloat16, bits);
    CHECK(static_cast<double>(s) * (1 << bits) < 3.4028234e38);
  }
  CHECK(round_scale(1e300, scale_type::float16, 3) == 65504.0F);
}

}  // namespace slim_quantize_scale_test
