// Routing and grouping on the device against the host's.
#include "cuda/support.hpp"

#include <doctest/doctest.h>
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/cuda/group.cuh>
#include <slimtrim/router/dispatch.hpp>
#include <slimtrim/router/route.hpp>

#include <cmath>
#include <limits>

namespace cuda_route_test {

using namespace slimtrim;

namespace {

struct routed {
  tensor<std::int32_t, 2> indices;
  tensor<float, 2> weights, probabilities;
  routed(index_t tokens, index_t experts, index_t k) : indices(tokens, k), weights(tokens, k), probabilities(tokens, experts) {}
};

void check_rule(routing_rule const& rule, index_t tokens, index_t experts, bool with_mask) {
  cuda_tests::device_memory device;
  tensor<float, 2> logits(tokens, experts);
  for (index_t i = 0; i < tokens * experts; ++i)  // few values, so that there are ties
    logits.view().data[i] = std::round(4 * static_cast<float>(normal_at(3, 3, static_cast<std::uint64_t>(i)))) / 4;
  if (tokens > 1) logits(1, 0) = -std::numeric_limits<float>::infinity();
  std::vector<float> bias(static_cast<std::size_t>(experts));
  for (std::size_t j = 0; j < bias.size(); ++j) bias[j] = static_cast<float>(0.1 * normal_at(3, 4, j));
  std::vector<std::uint8_t> kept(static_cast<std::size_t>(experts), 1);
  for (std::size_t j = 0; j < kept.size(); j += 3) kept[j] = 0;
  routed host(tokens, experts, rule.top_k);
  vector_view<float const> const host_bias = rule.selection_bias ? vector_view<float const>(bias.data(), experts) : vector_view<float const>{};
  vector_view<std::uint8_t const> const host_kept = with_mask ? vector_view<std::uint8_t const>(kept.data(), experts) : vector_view<std::uint8_t const>{};
  route(reference_backend{}, as_const(logits.view()), rule, host_bias, host.indices.view(), host.weights.view(),
        host.probabilities.view(), host_kept);

  auto const indices = device.matrix<std::int32_t>(tokens, rule.top_k);
  auto const weights = device.matrix<float>(tokens, rule.top_k), probabilities = device.matrix<float>(tokens, experts);
  device_vector<float const> device_bias;
  if (rule.selection_bias) device_bias = device_vector<float const>(device.keep<float>(bias.data(), experts), experts);
  device_vector<std::uint8_t const> device_kept;
  if (with_mask) device_kept = device_vector<std::uint8_t const>(device.keep<std::uint8_t>(kept.data(), experts), experts);
  route(device.backend(), as_const(device.upload_matrix<float>(logits)), rule, device_bias, indices, weights, probabilities, device_kept);
  device.backend().synchronise();
  auto const found = device.download<std::int32_t>(indices);
  auto const found_weights = device.download<float>(weights), found_probabilities = device.download<float>(probabilities);
  CAPTURE(experts);
  CAPTURE(rule.top_k);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t s = 0; s < rule.top_k; ++s) {
      auto const at = static_cast<std::size_t>(t * rule.top_k + s);
      REQUIRE(found[at] == host.indices(t, s));
      // The same formula in double, rounded once: one unit in the last place at most.
      REQUIRE(std::abs(found_weights[at] - host.weights(t, s)) <= 1.2e-7F * std::abs(host.weights(t, s)));
    }
    for (index_t j = 0; j < experts; ++j)
      REQUIRE(std::abs(found_probabilities[static_cast<std::size_t>(t * experts + j)] - host.probabilities(t, j)) <=
              1.2e-7F * host.probabilities(t, j));
  }
}

}  // namespace

TEST_CASE("cuda route: every rule chooses the host's experts with the host's weights") {
  for (bool with_mask : {false, true}) {
    check_rule({}, 9, 8, with_mask);
    check_rule({.top_k = 6, .renormalise = false}, 3, 64, with_mask);
    check_rule({.top_k = 8, .groups = 8, .groups_kept = 3}, 5, 64, with_mask);
    check_rule({.score = score_function::sigmoid, .top_k = 4, .weight_sum_epsilon = 1e-20, .scale = 2.5F, .selection_bias = true,
                .groups = 4, .groups_kept = 2, .group_by = group_score::top_two_sum}, 5, 32, with_mask);
    check_rule({.score = score_function::sqrt_softplus, .top_k = 3, .selection_bias = true}, 5, 40, with_mask);
    check_rule({.top_k = 4, .select_before_score = true}, 5, 33, with_mask);
    check_rule({.top_k = 5, .weight_sum_floor = 0.5}, 2, 6, with_mask);  // fewer experts than slots under the mask
  }
  check_rule({}, 0, 8, false);
  check_rule({.top_k = 1}, 1, 1, false);
}

TEST_CASE("cuda route: logits made on the spot") {
  cuda_tests::device_memory device;
  index_t const tokens = 5, hidden = 264, experts = 12;
  tensor<bfloat16, 2> X(tokens, hidden), R(experts, hidden);
  for (index_t i = 0; i < tokens * hidden; ++i) X.view().data[i] = bfloat16(static_cast<float>(normal_at(1, 0, static_cast<std::uint64_t>(i))));
  for (index_t i = 0; i < experts * hidden; ++i) R.view().data[i] = bfloat16(static_cast<float>(0.1 * normal_at(1, 1, static_cast<std::uint64_t>(i))));
  tensor<float, 2> logits(tokens, experts);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t e = 0; e < experts; ++e) {
      double sum = 0;
      for (index_t j = 0; j < hidden; ++j) sum += static_cast<double>(static_cast<float>(X(t, j))) * static_cast<double>(static_cast<float>(R(e, j)));
      logits(t, e) = static_cast<float>(sum);
    }
  routing_rule const rule;
  routed host(tokens, experts, rule.top_k);
  route(reference_backend{}, as_const(logits.view()), rule, {}, host.indices.view(), host.weights.view());
  auto const indices = device.matrix<std::int32_t>(tokens, rule.top_k);
  auto const weights = device.matrix<float>(tokens, rule.top_k);
  cuda::route<bfloat16>(device.backend().on(), as_const(device.upload_matrix<bfloat16>(X)), as_const(device.upload_matrix<bfloat16>(R)),
                        rule, {}, {indices, weights, {}}, {});
  device.backend().synchronise();
  auto const found = device.download<std::int32_t>(indices);
  auto const found_weights = device.download<float>(weights);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t s = 0; s < rule.top_k; ++s) {
      CHECK(found[static_cast<std::size_t>(t * rule.top_k + s)] == host.indices(t, s));
      CHECK(std::abs(found_weights[static_cast<std::size_t>(t * rule.top_k + s)] - host.weights(t, s)) < 1e-5F);
    }
}

TEST_CASE("cuda route: a logit that is NaN is reported") {
  cuda_tests::device_memory device;
  tensor<float, 2> logits(2, 4);
  logits.fill(0.0F);
  logits(1, 2) = std::numeric_limits<float>::quiet_NaN();
  auto const indices = device.matrix<std::int32_t>(2, 2);
  auto const weights = device.matrix<float>(2, 2);
  route(device.backend(), as_const(device.upload_matrix<float>(logits)), {}, {}, indices, weights);
  CHECK_THROWS_AS(device.backend().synchronise(), numeric_error);
  CHECK(device.download<std::int32_t>(indices) == std::vector<std::int32_t>{0, 1, 0, 1});
}

TEST_CASE("cuda route: as many slots as a warp has lanes, and no more") {
  check_rule({.top_k = 32}, 2, 40, true);
  cuda_tests::device_memory device;
  tensor<float, 2> logits(1, 40);
  logits.fill(0.0F);
  auto const indices = device.matrix<std::int32_t>(1, 33);
  auto const weights = device.matrix<float>(1, 33);
  auto const given = as_const(device.upload_matrix<float>(logits));
  CHECK_THROWS_AS(route(device.backend(), given, {.top_k = 33}, {}, indices, weights), error);
}

TEST_CASE("cuda group: pairs as the host's counting sort orders them") {
  for (index_t tokens : {0, 1, 3, 200})
    for (index_t experts : {1, 8, 70}) {
      cuda_tests::device_memory device;
      index_t const k = 2;
      tensor<std::int32_t, 2> indices(tokens, k);
      for (index_t i = 0; i < tokens * k; ++i) {
        std::uint64_t const dice = random_bits_at(5, static_cast<std::uint64_t>(experts), static_cast<std::uint64_t>(i));
        // A fifth of the slots is unused, and the last expert never chosen, unless it is the only one.
        indices.view().data[i] = dice % 5 == 0 ? -1 : static_cast<std::int32_t>(dice / 5 % static_cast<std::uint64_t>(experts > 1 ? experts - 1 : 1));
      }
      auto const expected = group_by_expert(as_const(indices.view()), experts);
      cuda::expert_groups const groups{device.keep<std::int32_t>(nullptr, experts + 1), device.keep<std::int32_t>(nullptr, tokens * k),
                                       device.keep<std::int32_t>(nullptr, tokens * k), device.keep<std::int32_t>(nullptr, experts),
                                       device.keep<std::int32_t>(nullptr, 1)};
      cuda::group_pairs(device.backend().on(), as_const(device.upload_matrix<std::int32_t>(indices)), experts, groups);
      auto const offsets = device.download<std::int32_t>(device_vector<std::int32_t>(groups.offsets, experts + 1));
      auto const pairs = device.download<std::int32_t>(device_vector<std::int32_t>(groups.pairs, tokens * k));
      auto const position = device.download<std::int32_t>(device_vector<std::int32_t>(groups.position, tokens * k));
      auto const active = device.download<std::int32_t>(device_vector<std::int32_t>(groups.active, experts));
      auto const count = device.download<std::int32_t>(device_vector<std::int32_t>(groups.active_count, 1));
      std::size_t busy = 0;
      for (index_t e = 0; e <= experts; ++e) CHECK(offsets[static_cast<std::size_t>(e)] == expected.offsets[static_cast<std::size_t>(e)]);
      for (index_t e = 0; e < experts; ++e)
        if (expected.count(e) > 0) CHECK(active[busy++] == e);
      CHECK(count[0] == static_cast<std::int32_t>(busy));
      for (index_t i = 0; i < expected.pairs(); ++i) {
        auto const at = static_cast<std::size_t>(i);
        CHECK(pairs[at] == expected.tokens[at] * k + expected.slots[at]);
        CHECK(position[static_cast<std::size_t>(pairs[at])] == i);
      }
      for (index_t i = 0; i < tokens * k; ++i)
        if (indices.view().data[i] < 0) CHECK(position[static_cast<std::size_t>(i)] == -1);
    }
}

}  // namespace cuda_route_test
