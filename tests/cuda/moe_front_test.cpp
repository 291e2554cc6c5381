// Normalise, route and group in one launch against the three launches that it stands for.
#include "cuda/support.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/moe_front.cuh>
#include <doctest/doctest.h>

#include <cmath>

namespace cuda_moe_front_test {

using namespace slimtrim;

namespace {

void check(index_t tokens, index_t experts, index_t hidden, index_t width, routing_rule const& rule, bool with_mask) {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  auto const fill = [&](auto& x, std::uint64_t stream, double size) {
    using element = std::remove_cvref_t<decltype(x(0, 0))>;
    for (index_t i = 0; i < x.extent(0) * x.extent(1); ++i)
      x.view().data[i] = element(static_cast<float>(size * normal_at(9, stream, static_cast<std::uint64_t>(i))));
  };
  tensor<float, 2> stream(tokens, hidden), added(tokens, hidden);
  tensor<bfloat16, 2> router(experts, hidden);
  fill(stream, 1, 1);
  fill(added, 2, 1);
  fill(router, 3, 0.2);
  std::vector<float> norm(static_cast<std::size_t>(width), 1.5F), bias(static_cast<std::size_t>(experts));
  for (std::size_t e = 0; e < bias.size(); ++e) bias[e] = static_cast<float>(0.1 * normal_at(9, 4, e));
  std::vector<std::uint8_t> kept(static_cast<std::size_t>(experts), 1);
  for (std::size_t e = 0; e < kept.size(); e += 2) kept[e] = 0;
  cuda::moe_layer_view<bfloat16> layer;
  layer.rule = rule;
  layer.experts = experts;
  layer.hidden = hidden;
  layer.width = 64;
  layer.router = as_const(device.upload_matrix<bfloat16>(router));
  if (rule.selection_bias)
    layer.selection_bias = device_vector<float const>(device.keep<float>(bias.data(), experts), experts);
  if (with_mask)
    layer.kept = device_vector<std::uint8_t const>(device.keep<std::uint8_t>(kept.data(), experts), experts);
  device_vector<float const> const weight(device.keep<float>(norm.data(), width), width);
  index_t const k = rule.top_k, pairs = tokens * k;

  cuda::moe_workspace<bfloat16> const one(on, tokens, k, experts, 64, hidden),
      three(on, tokens, k, experts, 64, hidden);
  unsigned const zero = 0;
  unsigned* const ticket = device.keep<unsigned>(&zero, 1);
  auto const N = device.matrix<bfloat16>(tokens, hidden), M = device.matrix<bfloat16>(tokens, hidden);
  auto const X = device.upload_matrix<float>(stream);
  auto const A = as_const(device.upload_matrix<float>(added));
  cuda::moe_front<bfloat16>(on, layer, X, A, weight, 1e-5, N, one, ticket);
  auto const found = device.download<float>(X);
  auto const Y = device.upload_matrix<float>(stream);
  cuda::add_and_normalise<bfloat16>(on, Y, A, weight, 1e-5, M);
  CHECK(found == device.download<float>(Y));
  auto const n = device.download<bfloat16>(N), m = device.download<bfloat16>(M);
  for (std::size_t i = 0; i < n.size(); ++i)  // the mean in another order: at most the next number
    REQUIRE(std::abs(static_cast<float>(n[i]) - static_cast<float>(m[i])) <=
            0.0079F * std::abs(static_cast<float>(m[i])));
  device_matrix<std::int32_t> const indices(three.indices.data(), tokens, k);
  cuda::route<bfloat16>(on, as_const(N), layer.router, rule, layer.selection_bias,
                        {indices, device_matrix<float>(three.factors.data(), tokens, k), {}}, layer.kept);
  cuda::group_pairs(on, as_const(indices), experts, three.groups());
  device.backend().synchronise();
  auto const same = [&](auto const* a, auto const* b, index_t count) {
    using element = std::remove_cv_t<std::remove_pointer_t<decltype(a)>>;
    std::vector<element> x(static_cast<std::size_t>(count)), y(static_cast<std::size_t>(count));
    cuda::copy_to_host(on.stream(), a, count, x.data());
    cuda::copy_to_host(on.stream(), b, count, y.data());
    CHECK(x == y);
    return x;
  };
  same(one.indices.data(), three.indices.data(), pairs);
  same(one.factors.data(), three.factors.data(), pairs);
  auto const offsets = same(one.groups().offsets, three.groups().offsets, experts + 1);
  same(one.groups().pairs, three.groups().pairs, offsets.back());
  same(one.groups().position, three.groups().position, pairs);
  auto const active = same(one.groups().active_count, three.groups().active_count, 1);
  same(one.groups().active, three.groups().active, active.front());
  unsigned left = 1;
  cuda::copy_to_host(on.stream(), ticket, 1, &left);
  CHECK(left == 0);
}

// Sigmoid scores, a bias for the selection, groups of experts of which half may be chosen from.
routing_rule routing_like_deepseek3() {
  routing_rule rule;
  rule.top_k = 3;
  rule.score = score_function::sigmoid;
  rule.selection_bias = true;
  rule.groups = 4;
  rule.groups_kept = 2;
  return rule;
}

}  // namespace

TEST_CASE("moe_front: the same as three launches") {
  check(1, 8, 128, 128, {}, false);
  check(32, 8, 128, 100, {}, true);
  check(7, 64, 64, 64, {.top_k = 6, .renormalise = false}, false);
  check(5, 16, 192, 192, routing_like_deepseek3(), false);
  check(3, 300, 64, 64, {.top_k = 4}, true);
}

TEST_CASE("moe_front: more tokens than one block groups, workspaces too small, and another router, are refused") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  cuda::moe_layer_view<bfloat16> layer;
  layer.experts = 8;
  layer.hidden = 64;
  layer.width = 64;
  layer.router = as_const(device.matrix<bfloat16>(8, 64));
  auto const run = [&](index_t tokens, index_t room) {
    cuda::moe_workspace<bfloat16> const work(on, room, 2, 8, 64, 64);
    cuda::moe_front<bfloat16>(on, layer, device.matrix<float>(tokens, 64), {}, as_const(device.vector<float>(64)), 1e-5,
                              device.matrix<bfloat16>(tokens, 64), work, device.keep<unsigned>(nullptr, 1));
  };
  CHECK_THROWS_AS(run(33, 33), error);
  CHECK_THROWS_AS(run(4, 3), error);
  layer.router = as_const(device.matrix<bfloat16>(7, 64));
  CHECK_THROWS_WITH_AS(run(4, 4), "cuda::moe_front: rows of the router: expected 8, found 7", error);
  layer.router = as_const(device.matrix<bfloat16>(8, 72));
  CHECK_THROWS_WITH_AS(run(4, 4), "cuda::moe_front: columns of the router: expected 64, found 72", error);
}

}  // namespace cuda_moe_front_test
