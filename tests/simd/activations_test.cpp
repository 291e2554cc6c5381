#include <doctest/doctest.h>
#include <slimtrim/core/random.hpp>
#include <slimtrim/simd/activations.hpp>
#include <slimtrim/simd/dispatch.hpp>

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

TEST_CASE("weights of one plan share activations, others get their own") {
  tensor<float, 2> X(2, 64);
  X.fill(1.0F);
  auto const& kernels = simd::static_kernels();
  auto const four = plan_of(simd::element_kind::codes4, 64, 1), other_groups = plan_of(simd::element_kind::codes4, 64, 2);
  auto three = four;
  three.middle = 4;
  simd::shared_activations exact(kernels, X.view(), activation_kind::floating);
  simd::shared_activations rounded(kernels, X.view(), activation_kind::int8);
  CHECK(&exact.ready_for(four) == &exact.ready_for(four));
  CHECK(&exact.ready_for(four) != &exact.ready_for(other_groups));
  CHECK(&rounded.ready_for(four) == &rounded.ready_for(other_groups));
  CHECK(&rounded.ready_for(four) != &rounded.ready_for(three));
  CHECK(&rounded.ready_for(four) != &rounded.ready_for(plan_of(simd::element_kind::codes8, 64, 1)));
}

}  // namespace simd_activations_test
