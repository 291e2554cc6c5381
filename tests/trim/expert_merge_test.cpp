#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/trim/expert_merge.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <vector>

namespace trim_expert_merge_test {

using namespace slimtrim;

namespace {

struct expert {
  tensor<float, 2> gate{7, 5}, up{7, 5}, down{5, 7};
  [[nodiscard]] expert_matrices weights() const { return {gate.view(), up.view(), down.view()}; }
};

expert random_expert() {
  expert e;
  for (index_t i = 0; i < 7; ++i)
    for (index_t j = 0; j < 5; ++j) {
      auto const at = static_cast<std::uint64_t>(i * 5 + j);
      e.gate(i, j) = static_cast<float>(normal_at(1, 0, at));
      e.up(i, j) = static_cast<float>(normal_at(1, 1, at));
      e.down(j, i) = static_cast<float>(normal_at(1, 2, at));
    }
  return e;
}

}  // namespace

TEST_CASE("a shuffled copy is aligned again, so that the average is the expert itself") {
  auto const a = random_expert();
  expert b;
  std::vector<index_t> const shuffle{3, 0, 6, 1, 5, 2, 4};  // neuron k of b is neuron shuffle[k] of a
  for (index_t k = 0; k < 7; ++k)
    for (index_t j = 0; j < 5; ++j) {
      b.gate(k, j) = a.gate(shuffle[static_cast<std::size_t>(k)], j);
      b.up(k, j) = a.up(shuffle[static_cast<std::size_t>(k)], j);
      b.down(j, k) = a.down(j, shuffle[static_cast<std::size_t>(k)]);
    }
  auto const order = align_neurons(reference_backend{}, a.weights(), b.weights());
  for (index_t k = 0; k < 7; ++k) CHECK(shuffle[static_cast<std::size_t>(order[static_cast<std::size_t>(k)])] == k);
  std::vector<std::vector<index_t>> const orders{{}, order};
  std::vector<double> const weights{.25, .75};
  tensor<float, 2> gate(7, 5), down(5, 7);
  std::vector<matrix_view<float const>> const gates{a.gate.view(), b.gate.view()}, downs{a.down.view(), b.down.view()};
  average_experts(gates, weights, orders, neuron_axis::rows, gate.view());
  average_experts(downs, weights, orders, neuron_axis::columns, down.view());
  for (index_t k = 0; k < 7; ++k)
    for (index_t j = 0; j < 5; ++j) {
      CHECK(gate(k, j) == a.gate(k, j));  // .25 w + .75 w is exact in double
      CHECK(down(j, k) == a.down(j, k));
    }
}

TEST_CASE("the weighted average by hand, without alignment; an expert without a gate; wrong shapes") {
  std::vector<float> const a{1, 2}, b{5, 10};
  std::vector<matrix_view<float const>> const members{matrix_view<float const>(a.data(), 1, 2),
                                                      matrix_view<float const>(b.data(), 1, 2)};
  std::vector<double> const weights{.75, .25};
  std::vector<std::vector<index_t>> const orders(2);
  tensor<float, 2> out(1, 2), wrong(2, 2);
  average_experts(members, weights, orders, neuron_axis::rows, out.view());
  CHECK(out(0, 0) == 2);
  CHECK(out(0, 1) == 4);
  CHECK_THROWS_AS(average_experts(members, weights, orders, neuron_axis::rows, wrong.view()), error);
  CHECK_THROWS_AS(average_experts({}, {}, {}, neuron_axis::rows, out.view()), error);
  auto const e = random_expert();
  expert_matrices const gateless{{}, e.up.view(), e.down.view()};
  CHECK(align_neurons(reference_backend{}, gateless, gateless) == std::vector<index_t>{0, 1, 2, 3, 4, 5, 6});
  CHECK_THROWS_AS(align_neurons(reference_backend{}, gateless, {{}, e.down.view(), e.down.view()}), error);
}

}  // namespace trim_expert_merge_test
