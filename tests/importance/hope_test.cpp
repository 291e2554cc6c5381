#include <slimtrim/core/random.hpp>
#include <slimtrim/importance/hope.hpp>
#include <importance/hand_layer.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <vector>

namespace importance_hope_test {

using namespace slimtrim;

TEST_CASE("hope by hand: the pair matrix and the greedy scores") {
  auto const layer = hand::layer();
  auto const F = hope_matrix(layer);
  CHECK(F[0] == doctest::Approx(56.25));
  CHECK(F[1] == doctest::Approx(7.5));
  CHECK(F[3] == doctest::Approx(7.5));
  CHECK(F[4] == doctest::Approx(200.5));
  CHECK(F[8] == 0);
  CHECK(hand::scores(hope_importance{}(layer), 56.25, 200.5 + 15, 0));
  auto const both = hope_select(F, 3, 2);
  CHECK(both.removed == std::vector<index_t>{0, 2});
  CHECK(both.cost == doctest::Approx(56.25));
}

TEST_CASE("a swap repairs what greedy chose first") {
  // Greedy takes 0 (1), then any other costs 1.1 + 2 * 5; the best pair is 1 and 2.
  std::vector<double> const F{1, 5, 5, 5, 1.1, 0, 5, 0, 1.1};
  auto const best = hope_select(F, 3, 2);
  CHECK(best.removed == std::vector<index_t>{1, 2});
  CHECK(best.cost == doctest::Approx(2.2));
}

TEST_CASE("no set that differs in one expert is cheaper") {
  index_t const n = 9, count = 4;
  std::vector<double> F(static_cast<std::size_t>(n * n));
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j <= i; ++j)
      F[static_cast<std::size_t>(i * n + j)] = F[static_cast<std::size_t>(j * n + i)] =
          uniform_at(4, 0, static_cast<std::uint64_t>(i * n + j));
  auto const cost = [&](unsigned set) {
    double sum = 0;
    for (index_t i = 0; i < n; ++i)
      for (index_t j = 0; j < n; ++j)
        if (((set >> i) & (set >> j) & 1U) != 0) sum += F[static_cast<std::size_t>(i * n + j)];
    return sum;
  };
  auto const found = hope_select(F, n, count);
  unsigned set = 0;
  for (index_t const j : found.removed) set |= 1U << j;
  CHECK(found.cost == doctest::Approx(cost(set)));
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < n; ++j)
      if (((set >> i) & 1U) != 0 && ((set >> j) & 1U) == 0)
        CHECK(cost((set & ~(1U << i)) | (1U << j)) >= found.cost - 1e-9);
}

TEST_CASE("edges: none, all, ties, wrong counts") {
  std::vector<double> const flat(9, 1.0);
  CHECK(hope_select(flat, 3, 0).removed.empty());
  CHECK(hope_select(flat, 3, 1).removed == std::vector<index_t>{0});
  CHECK(hope_select(flat, 3, 3).cost == 9);
  CHECK_THROWS_AS(hope_select(flat, 3, 4), error);
  CHECK_THROWS_AS(hope_select(flat, 2, 1), error);
}

}  // namespace importance_hope_test
