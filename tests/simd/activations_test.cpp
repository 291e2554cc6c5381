#include <doctest/doctest.h>
#include <slimtrim/core/random.hpp>
#include <slimtrim/simd/activations.hpp>

#include <cmath>
#include <limits>

namespace simd_activations_test {

using namespace slimtrim;

namespace {

simd::panel_view plan_of(simd::element_kind kind, index_t columns, index_t group_blocks) {
  simd::panel_view plan;
  plan.kind = kind, plan.rows = 8, plan.columns = columns, plan.blocks = ceil_div(columns, simd::block_columns);
  plan.group_blocks = group_blocks;
  return plan;
}

}  // namespace

TEST_CASE("rounded activations keep every element within its block's largest over 254, in the kernels' order") {
  index_t const columns = 75;
  tensor<float, 2> X(3, columns);
  for (index_t i = 0; i < 3 * columns; ++i)
    X.view().data[i] = static_cast<float>(normal_at(1, 1, static_cast<std::uint64_t>(i))) * (i % 7 == 0 ? 30.0F : 0.1F);
  for (auto kind : {simd::element_kind::codes4, simd::element_kind::codes8}) {
    simd::rounded_activations const ready(X.view(), plan_of(kind, columns, 1));
    auto const view = ready.from(0);
    for (index_t t = 0; t < 3; ++t)
      for (index_t block = 0; block < 3; ++block) {
        float largest = 0, sum = 0;
        for (index_t i = 0; i < 32 && block * 32 + i < columns; ++i)
          largest = std::max(largest, std::fabs(X(t, block * 32 + i)));
        for (index_t i = 0; i < 32; ++i) {
          index_t const in_word = i % 8;
          index_t const place =
              kind == simd::element_kind::codes4 ? i - in_word + (in_word % 2) * 4 + in_word / 2 : i;
          auto const code = view.codes[(t * 3 + block) * 32 + place];
          sum += static_cast<float>(code);
          float const x = block * 32 + i < columns ? X(t, block * 32 + i) : 0.0F;
          CHECK(std::fabs(x - static_cast<float>(code) * view.scales[t * 3 + block]) <= largest / 254 * 1.0001F);
        }
        CHECK(view.sums[t * 3 + block] == sum);
      }
  }
}

TEST_CASE("blocks of zeros and of tiny numbers round to zero, what is not finite is refused") {
  tensor<float, 2> X(1, 64);
  X.fill(0);
  X(0, 40) = 1e-38F;
  auto const plan = plan_of(simd::element_kind::codes4, 64, 1);
  simd::rounded_activations const ready(X.view(), plan);
  for (index_t i = 0; i < 64; ++i) CHECK(ready.from(0).codes[i] == 0);
  CHECK(ready.from(0).scales[1] == 0.0F);
  for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    X(0, 63) = bad;
    CHECK_THROWS_AS(simd::rounded_activations(X.view(), plan), numeric_error);
  }
}

TEST_CASE("exact activations carry the powers of two of their places, and sums of groups without them") {
  tensor<float, 2> X(1, 40);
  for (index_t k = 0; k < 40; ++k) X(0, k) = static_cast<float>(k + 1);
  simd::exact_activations const ready(X.view(), plan_of(simd::element_kind::codes4, 40, 1));
  auto const view = ready.from(0);
  for (index_t k = 0; k < 40; ++k) {
    float const power = k % 8 == 7 ? 1.0F : std::ldexp(1.0F, static_cast<int>(-4 * (k % 8)));
    CHECK(view.values[k] == X(0, k) * power);
  }
  for (index_t k = 40; k < 64; ++k) CHECK(view.values[k] == 0.0F);
  CHECK(view.group_sums[0] == 32.0F * 33 / 2);
  CHECK(view.group_sums[1] == 40.0F * 41 / 2 - 32.0F * 33 / 2);
}

}  // namespace simd_activations_test
