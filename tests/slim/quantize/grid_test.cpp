#include <slimtrim/slim/quantize/grid.hpp>

#include <doctest/doctest.h>

#include <slimtrim/core/random.hpp>

#include <cmath>
#include <limits>

namespace slim_quantize_grid_test {

using namespace slimtrim;

TEST_CASE("symmetric uniform grid follows compressed-tensors") {
  uniform_grid const g{.bits = 4};
  auto const at = g.from_range(-3.0F, 7.5F, scale_type::float32);
  CHECK(at.scale == 1.0F);
  CHECK(at.zero == 8);
  CHECK(g.encode(7.5F, at) == 15);   // 8 does not exist: clamped to 7
  CHECK(g.encode(-7.5F, at) == 0);   // -7.5 rounds to even, -8
  CHECK(g.encode(0.5F, at) == 8);    // ties to even
  CHECK(g.encode(1.5F, at) == 10);
  CHECK(g.encode(-0.5F, at) == 8);
  CHECK(g.decode(15, at) == 7.0F);
  CHECK(g.decode(0, at) == -8.0F);
}

TEST_CASE("zero points cover both ends and represent zero exactly") {
  for (int bits : {2, 3, 4, 8}) {
    uniform_grid const g{.bits = bits, .symmetric = false};
    auto const at = g.from_range(-1.0F, 3.0F, scale_type::float32);
    CHECK(at.scale == doctest::Approx(4.0 / ((1 << bits) - 1)));
    CHECK(g.decode(g.encode(0.0F, at), at) == 0.0F);
    CHECK(std::fabs(g.decode(g.encode(-1.0F, at), at) + 1.0F) <= 0.5F * at.scale * 1.0001F);
    CHECK(std::fabs(g.decode(g.encode(3.0F, at), at) - 3.0F) <= 0.5F * at.scale * 1.0001F);
    // A range that does not reach zero is extended to it.
    CHECK(g.from_range(1.0F, 3.0F, scale_type::float32).zero == 0);
    CHECK(g.from_range(-3.0F, -1.0F, scale_type::float32).zero == g.last_code());
  }
}

TEST_CASE("encode is the nearest code: exhaustive search agrees") {
  for (int bits = 1; bits <= 8; ++bits)
    for (bool symmetric : {true, false}) {
      uniform_grid const g{bits, symmetric};
      for (std::uint64_t i = 0; i < 300; ++i) {
        float const value = static_cast<float>(4.0 * normal_at(7, static_cast<std::uint64_t>(bits), i));
        auto const at = g.from_range(-3.0F, 5.0F, scale_type::bfloat16);
        float least = std::numeric_limits<float>::infinity();
        for (int c = 0; c <= g.last_code(); ++c)
          least = std::min(least, std::fabs(value - g.decode(static_cast<std::uint32_t>(c), at)));
        float const found = std::fabs(value - g.decode(g.encode(value, at), at));
        CHECK(found <= least + 2e-6F * std::fabs(value) + 1e-6F);
      }
    }
}

TEST_CASE("scales are never zero, infinite or unrepresentable") {
  float const huge = std::numeric_limits<float>::max(), tiny = std::numeric_limits<float>::denorm_min();
  for (auto type : {scale_type::float32, scale_type::bfloat16, scale_type::float16})
    for (int bits : {2, 3, 4, 8})
      for (bool symmetric : {true, false})
        for (float top : {0.0F, tiny, 1e-38F, 1e-8F, 1.0F, 7e4F, 1e30F, huge}) {
          uniform_grid const g{bits, symmetric};
          auto const at = g.from_range(-top, top, type);
          REQUIRE(std::isfinite(at.scale));
          REQUIRE(at.scale > 0);
          REQUIRE(std::isfinite(1.0F / at.scale));
          if (type == scale_type::bfloat16) REQUIRE(static_cast<float>(bfloat16(at.scale)) == at.scale);
          if (type == scale_type::float16) REQUIRE(static_cast<float>(float16(at.scale)) == at.scale);
          for (float value : {-top, 0.0F, top}) REQUIRE(std::isfinite(g.decode(g.encode(value, at), at)));
          REQUIRE(g.decode(g.encode(0.0F, at), at) == 0.0F);
        }
}

TEST_CASE("FP8 and MXFP4 grids round to their nearest value") {
  float8_grid const eight;
  auto at = eight.from_range(-448.0F, 1.0F, scale_type::float32);
  CHECK(at.scale == 1.0F);
  CHECK(eight.decode(eight.encode(-448.0F, at), at) == -448.0F);
  CHECK(eight.decode(eight.encode(0.1F, at), at) == 0.1015625F);

  mxfp4_grid const four;
  at = four.from_range(-6.0F, 2.0F, scale_type::bfloat16);
  CHECK(at.scale == 1.0F);
  float const values[8] = {0, 0.5F, 1, 1.5F, 2, 3, 4, 6};
  for (float value : values) {
    CHECK(four.decode(four.encode(value, at), at) == value);
    CHECK(four.decode(four.encode(-value, at), at) == -value);
  }
  CHECK(four.decode(four.encode(2.5F, at), at) == 2.0F);  // ties to the even mantissa
  CHECK(four.decode(four.encode(3.5F, at), at) == 4.0F);
  CHECK(four.decode(four.encode(5.0F, at), at) == 4.0F);
  CHECK(four.decode(four.encode(100.0F, at), at) == 6.0F);
}

TEST_CASE("bits outside 1 to 8 are refused") {
  CHECK_THROWS_AS((uniform_grid{.bits = 0}.check()), error);
  CHECK_THROWS_AS((uniform_grid{.bits = 9}.check()), error);
}

}  // namespace slim_quantize_grid_test
