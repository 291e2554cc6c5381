#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/simd/dispatch.hpp>
#include <slimtrim/simd/rounded_activations.hpp>
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

namespace simd_rounded_activations_test {

using namespace slimtrim;

namespace {

simd::panel_view plan_of(simd::element_kind kind, index_t columns) {
  simd::panel_view plan;
  plan.kind = kind, plan.rows = 8, plan.columns = columns, plan.blocks = ceil_div(columns, simd::block_columns);
  plan.middle = kind == simd::element_kind::codes4 ? 8 : 128;
  return plan;
}

tensor<float, 2> uneven(index_t tokens, index_t columns) {
  tensor<float, 2> X(tokens, columns);
  for (index_t i = 0; i < tokens * columns; ++i)
    X.view().data[i] = static_cast<float>(normal_at(1, 1, static_cast<std::uint64_t>(i))) * (i % 7 == 0 ? 30.0F : 0.1F);
  return X;
}

}  // namespace

TEST_CASE("every element stays within its block's largest over 254, in the kernels' order") {
  auto const& kernels = simd::static_kernels();
  index_t const columns = 75;
  auto const X = uneven(3, columns);
  for (auto kind : {simd::element_kind::codes4, simd::element_kind::codes8}) {
    auto const plan = plan_of(kind, columns);
    simd::rounded_activations const ready(kernels, X.view(), plan);
    auto const view = ready.from(0);
    // What is taken off the codes by the kernel is not taken off again.
    std::int32_t const zero = kind == simd::element_kind::codes4 ? 8 : 128 - kernels.byte_offset;
    for (index_t t = 0; t < 3; ++t)
      for (index_t block = 0; block < 3; ++block) {
        float largest = 0;
        std::int32_t sum = 0;
        for (index_t i = 0; i < 32 && block * 32 + i < columns; ++i)
          largest = std::max(largest, std::fabs(X(t, block * 32 + i)));
        index_t const at = t * view.token_stride + block * view.block_stride;
        for (index_t i = 0; i < 32; ++i) {
          index_t const in_word = i % 8;
          index_t const place = kind == simd::element_kind::codes4 ? i - in_word + (in_word % 2) * 4 + in_word / 2 : i;
          auto const code = view.codes[at * 32 + place];
          sum += code;
          float const x = block * 32 + i < columns ? X(t, block * 32 + i) : 0.0F;
          CHECK(std::fabs(x - static_cast<float>(code) * view.scales[at]) <= largest / 254 * 1.0001F);
        }
        CHECK(view.starts[at] == -zero * sum);
      }
  }
}

TEST_CASE("stretches rounded one by one, and tiles, hold what whole rows do") {
  auto const& kernels = simd::static_kernels();
  index_t const columns = 3 * 64 + 5, tokens = 71;
  auto const X = uneven(tokens, columns);
  auto plan = plan_of(simd::element_kind::codes4, columns);
  plan.has_zeros = true;
  thread_pool pool(2);
  simd::rounded_activations const whole(kernels, X.view(), plan, &pool);
  simd::rounded_activations parts(kernels, tokens, plan);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t first = 0; first < columns; first += 64)
      parts.round(kernels, t, first, &X(t, first), std::min<index_t>(64, columns - first));
  simd::rounded_tiles const tiles(whole, &pool);
  CHECK(tiles.tiles() == 3);
  auto const a = whole.from(0), b = parts.from(0);
  bool equal = true;
  for (index_t tile = 0; tile < tiles.tiles(); ++tile) {
    auto const c = tiles.tile(tile);
    index_t const first = tiles.first_token(tile), count = tiles.first_token(tile + 1) - first;
    CHECK(count <= simd::int8_tokens);
    for (index_t t = 0; t < count; ++t)
      for (index_t block = 0; block < plan.blocks; ++block) {
        index_t const in_rows = (first + t) * a.token_stride + block * a.block_stride;
        index_t const in_tile = t * c.token_stride + block * c.block_stride;
        equal = equal && a.scales[in_rows] == b.scales[in_rows] && a.scales[in_rows] == c.scales[in_tile] &&
                a.starts[in_rows] == b.starts[in_rows] && a.starts[in_rows] == c.starts[in_tile];
        for (index_t i = 0; i < 32; ++i)
          equal = equal && a.codes[in_rows * 32 + i] == b.codes[in_rows * 32 + i] &&
                  a.codes[in_rows * 32 + i] == c.codes[in_tile * 32 + i];
      }
  }
  CHECK(equal);
}

TEST_CASE("blocks of zeros and of tiny numbers round to zero, what is not finite is refused") {
  auto const& kernels = simd::static_kernels();
  tensor<float, 2> X(1, 64);
  X.fill(0);
  X(0, 40) = 1e-38F;
  auto const plan = plan_of(simd::element_kind::codes4, 64);
  simd::rounded_activations const ready(kernels, X.view(), plan);
  for (index_t i = 0; i < 64; ++i) CHECK(ready.from(0).codes[i] == 0);
  CHECK(ready.from(0).scales[1] == 0.0F);
  for (float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    X(0, 63) = bad;
    CHECK_THROWS_WITH_AS(simd::rounded_activations(kernels, X.view(), plan),
                         "product: activations of token 0, columns from 32: expected finite numbers", numeric_error);
  }
}

}  // namespace simd_rounded_activations_test
