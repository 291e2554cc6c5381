// GPTQ on the device against slimtrim::gptq on the host: the same reports, and errors that are as small.
#include "cuda/support.hpp"

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/cuda/gptq.cuh>
#include <doctest/doctest.h>

#include "slim/support.hpp"

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace cuda_gptq_test {

using namespace slimtrim;
using slimtrim_test::gram_of;
using slimtrim_test::output_error;
using slimtrim_test::random_input;
using slimtrim_test::random_weight;

namespace {

struct stack {
  std::vector<matrix<float>> weights;
  matrix<float> input, hessian;
};

stack make(std::vector<index_t> const& rows, index_t columns, std::uint64_t seed) {
  stack made;
  for (index_t n : rows) made.weights.push_back(random_weight(n, columns, seed + 7 * made.weights.size()));
  made.input = random_input(2 * columns, columns, seed + 1);
  made.hessian = gram_of(made.input);
  return made;
}

cuda::gptq_problem<float> upload(cuda_tests::device_memory& device, stack const& from) {
  cuda::gptq_problem<float> problem;
  auto const send = [&](matrix<float> const& m) {
    return device_matrix<float const>(device.keep<float>(m.view().data, m.view().size()), m.extent(0), m.extent(1));
  };
  for (auto const& W : from.weights) problem.weights.push_back(send(W));
  problem.hessian = send(from.hessian);
  return problem;
}

std::vector<stack> one_stack(stack made) {
  std::vector<stack> all;
  all.push_back(std::move(made));
  return all;
}

void check_against_host(std::vector<stack> const& stacks, gptq_options const& options) {
  cuda_tests::device_memory device;
  std::vector<cuda::gptq_problem<float>> problems;
  for (auto const& from : stacks) problems.push_back(upload(device, from));
  auto const found = cuda::gptq(device.backend().on(), problems, options);
  REQUIRE(found.size() == stacks.size());
  for (std::size_t p = 0; p < stacks.size(); ++p) {
    REQUIRE(found[p].size() == stacks[p].weights.size());
    for (std::size_t w = 0; w < found[p].size(); ++w) {
      auto const& W = stacks[p].weights[w];
      auto const host = gptq(reference_backend{}, W, as_const(stacks[p].hessian.view()), options);
      auto const& mine = found[p][w];
      CHECK(mine.report.second_order == host.report.second_order);
      CHECK(mine.report.damp == host.report.damp);
      CHECK(mine.report.dead_columns == host.report.dead_columns);
      // Measured by pushing every token through; a few codes differ, the error does not.
      double const error = output_error(W, mine.matrix.view(), stacks[p].input);
      CHECK(error == doctest::Approx(output_error(W, host.matrix.view(), stacks[p].input)).epsilon(0.03));
      if (options.guard) {
        CHECK(mine.report.error == doctest::Approx(error).epsilon(1e-3));
        CHECK(mine.report.error_rtn == doctest::Approx(host.report.error_rtn).epsilon(1e-3));
      }
    }
  }
}

}  // namespace

TEST_CASE("cuda gptq: as good as the host, gate and up stacked, several experts at once") {
  auto experts = one_stack(make({24, 16}, 96, 1));
  experts.push_back(make({24, 16}, 96, 100));
  check_against_host(experts, {.groups = {group_kind::group, 32}});
  check_against_host(experts, {.grid = {4, false}, .groups = {group_kind::group, 32}, .scale = scale_rule::mse});
  check_against_host(experts, {.groups = {group_kind::channel, 0}, .guard = false});
}

TEST_CASE("cuda gptq: natural order searches scales when a group is reached, narrower and wider than a launch") {
  auto const one = one_stack(make({20}, 192, 5));
  for (index_t group : {24, 160})
    check_against_host(one, {.groups = {group_kind::group, group}, .order = sweep_order::natural});
  check_against_host(one, {.grid = {3, true}, .groups = {group_kind::group, 64}, .order = sweep_order::natural});
}

TEST_CASE("cuda gptq: dead inputs, and a Hessian of no use") {
  auto dead = make({16}, 64, 9);
  for (index_t j = 0; j < 64; ++j) dead.hessian(5, j) = dead.hessian(j, 5) = 0;
  for (index_t t = 0; t < dead.input.extent(0); ++t) dead.input(t, 5) = 0;
  check_against_host(one_stack(std::move(dead)), {.groups = {group_kind::group, 32}});

  auto nothing = make({16}, 64, 11);
  nothing.hessian.fill(0.0F);
  cuda_tests::device_memory device;
  // One problem of the batch without use does not disturb the other.
  auto const found =
      cuda::gptq<float>(device.backend().on(), {upload(device, nothing), upload(device, make({16}, 64, 12))},
                        {.groups = {group_kind::group, 32}});
  CHECK(!found[0][0].report.second_order);
  CHECK(found[1][0].report.second_order);
  auto const host = gptq(reference_backend{}, nothing.weights[0], as_const(nothing.hessian.view()),
                         {.groups = {group_kind::group, 32}});
  int different = 0;
  for (index_t i = 0; i < 16; ++i)
    for (index_t j = 0; j < 64; ++j) different += found[0][0].matrix.view()(i, j) != host.matrix.view()(i, j);
  CHECK(different <= 16 * 64 / 50);
}

TEST_CASE("cuda gptq: the device's backend takes the name that all backends share") {
  cuda_tests::device_memory device;
  auto const one = make({16}, 64, 21);
  auto const problem = upload(device, one);
  gptq_options const options{.groups = {group_kind::group, 32}};
  auto const found = gptq(device.backend(), problem.weights[0], problem.hessian, options);
  auto const batched = cuda::gptq<float>(device.backend().on(), {problem}, options);
  for (index_t i = 0; i < 16; ++i)
    for (index_t w = 0; w < 8; ++w) CHECK(found.matrix.words(i, w) == batched[0][0].matrix.words(i, w));
}

TEST_CASE("cuda gptq: what it does not take is refused, and a weight that is not finite is named") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  auto bad = make({16}, 64, 13);
  bad.weights[0](3, 7) = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH_AS((void)cuda::gptq<float>(on, {upload(device, bad)}),
                       "cuda::gptq: W[3, 7]: expected a finite value", input_error);
  auto const good = upload(device, make({16}, 64, 13));
  CHECK_THROWS_AS((void)cuda::gptq<float>(on, {good}, {.groups = {group_kind::tensor, 0}}), error);
  CHECK_THROWS_AS((void)cuda::gptq<float>(on, {good}, {.descent_passes = 1}), error);
  CHECK_THROWS_AS((void)cuda::gptq<float>(on, {good, upload(device, make({8}, 64, 13))}), error);
  CHECK(cuda::gptq<float>(on, {}).empty());
}

}  // namespace cuda_gptq_test
