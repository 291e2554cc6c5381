// Predicted damages and sizes: sums by hand, and bits that fit.
#include <slimtrim/pipeline/search/damage_model.hpp>

#include <slimtrim/pipeline/synth_shape.hpp>

#include <doctest/doctest.h>

#include <cmath>

namespace pipeline_search_damage_model_test {

using namespace slimtrim;

TEST_CASE("damages add up, each with its factor") {
  damage_table t;
  t.blocks = {{1, 0.5}};
  t.experts = {{6, 0.2}, {4, 0.8}};
  t.expert_factor = 0.25;
  t.rounding = {{{0, 2, 4}, 0.1}, {{0, 2, 3}, 0.4}};
  t.bits_factor = {{3, 0.5}};
  CHECK(t.structure({}) == 0);
  CHECK(t.structure({1, 0, 4, 0}) == doctest::Approx(0.7));
  CHECK(std::isinf(t.structure({2, 0, 0, 0})));
  CHECK(t.rounded(0, 2, 16) == 0);
  CHECK(t.rounded(0, 2, 4) == 0.1);
  CHECK(t.rounded(0, 2, 3) == doctest::Approx(0.2));
  CHECK(std::isinf(t.rounded(0, 1, 4)));
}

TEST_CASE("bits: what saves most for its damage goes down first, the rest is spent") {
  size_table sizes;
  sizes.fixed = 10;
  damage_table damages;
  // Layer 0 is sensitive, layer 1 is not; class 1 is small.
  for (index_t i = 0; i < 2; ++i)
    for (int const bits : {16, 8, 4}) {
      sizes.bytes[{0, i, bits}] = 4.0 * bits;
      damages.rounding[{0, i, bits}] = (i == 0 ? 1.0 : 0.01) * (16 - bits);
    }
  for (int const bits : {16, 8, 4}) {
    sizes.bytes[{1, 0, bits}] = 0.5 * bits;
    damages.rounding[{1, 0, bits}] = 0.001 * (16 - bits);
  }
  std::vector<std::vector<int>> const choices{{16, 8, 4}, {16, 8, 4}, {16}, {16}, {16}, {16}};
  auto const roomy = assign_bits(sizes, damages, choices, 2, 1000);
  REQUIRE(roomy);
  CHECK(roomy->bytes == 10 + 64 + 64 + 8);
  CHECK(roomy->damage == 0);
  auto const tight = assign_bits(sizes, damages, choices, 2, 100);
  REQUIRE(tight);
  CHECK(tight->bytes <= 100);
  CHECK(tight->bits[0][0] == 16);
  CHECK(tight->bits[0][1] == 4);
  CHECK(tight->damage == doctest::Approx(0.12 + damages.rounded(1, 0, tight->bits[1][0])));
  // 10 + 16 + 16 + 2 is the least.
  CHECK(assign_bits(sizes, damages, choices, 2, 44));
  CHECK_FALSE(assign_bits(sizes, damages, choices, 2, 43));
}

TEST_CASE("sizes of a model's classes") {
  CHECK(matrix_bytes_at(4, 64, 16, 32) == 512);
  CHECK(matrix_bytes_at(4, 64, 4, 32) == 128 + 16);
  CHECK(matrix_bytes_at(4, 64, 4, 0) == 128 + 8);
  model_config const config = synth_config({.family = "mixtral", .layers = 2, .hidden = 32, .intermediate = 64, .experts = 4, .heads = 2, .vocabulary = 300});
  size_table const all = sizes_of(config, {3, 5}, {16, 4}, 32, size_goal::file_bytes);
  CHECK(all.bytes.at({0, 5, 16}) == 4 * 3 * 2 * 32 * 64);
  CHECK(all.bytes.count({0, 0, 16}) == 0);
  CHECK(all.bytes.at({4, 0, 16}) == 2 * 300 * 32);
  // Norms of two layers and the last one, and the routers.
  CHECK(all.fixed == 2 * 32 * 5 + 2 * 2 * 4 * 32);
  size_table const active = sizes_of(config, {0, 1}, {16}, 32, size_goal::active_bytes);
  CHECK(active.bytes.at({0, 1, 16}) == 2 * 3 * 2 * 32 * 64);
  CHECK(active.bytes.at({5, 0, 16}) == doctest::Approx(2 * 32));
}

}  // namespace pipeline_search_damage_model_test
