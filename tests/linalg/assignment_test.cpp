#include <slimtrim/core/random.hpp>
#include <slimtrim/linalg/assignment.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace linalg_assignment_test {

using namespace slimtrim;

namespace {

std::vector<index_t> solve(std::vector<double> const& cost, index_t n, index_t m) {
  return assignment(matrix_view<double const>(cost.data(), n, m));
}

double total(std::vector<double> const& cost, std::vector<index_t> const& columns, index_t m) {
  double sum = 0;
  for (std::size_t i = 0; i < columns.size(); ++i)
    sum += cost[i * static_cast<std::size_t>(m) + static_cast<std::size_t>(columns[i])];
  return sum;
}

// Every ordered choice of columns.
double least_by_enumeration(std::vector<double> const& cost, index_t n, index_t m) {
  std::vector<index_t> columns(static_cast<std::size_t>(m));
  std::iota(columns.begin(), columns.end(), index_t{0});
  double least = std::numeric_limits<double>::infinity();
  do {
    least = std::min(least, total(cost, {columns.begin(), columns.begin() + n}, m));
  } while (std::next_permutation(columns.begin(), columns.end()));
  return least;
}

}  // namespace

TEST_CASE("by hand: the greedy choice is wrong") {
  std::vector<double> const cost{1, 2, 4, 2, 5, 9, 4, 9, 10};
  CHECK(solve(cost, 3, 3) == std::vector<index_t>{2, 1, 0});  // 13; greedy (0, 1, 2) costs 16
  CHECK(total(cost, solve(cost, 3, 3), 3) == least_by_enumeration(cost, 3, 3));
}

TEST_CASE("as good as enumeration, square and rectangular, negative costs and ties") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    index_t const n = 1 + static_cast<index_t>(seed % 5), m = n + static_cast<index_t>(seed % 3);
    std::vector<double> cost(static_cast<std::size_t>(n * m));
    for (std::size_t i = 0; i < cost.size(); ++i) cost[i] = std::floor(10 * uniform_at(seed, 0, i)) - 5;
    auto const found = solve(cost, n, m);
    auto sorted = found;
    std::sort(sorted.begin(), sorted.end());
    CHECK(std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end());
    CHECK(total(cost, found, m) == doctest::Approx(least_by_enumeration(cost, n, m)));
  }
}

TEST_CASE("a hidden permutation is found again") {
  index_t const n = 60;
  std::vector<double> cost(static_cast<std::size_t>(n * n));
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < n; ++j)
      cost[static_cast<std::size_t>(i * n + j)] =
          (i * 7 + 3) % n == j ? -1 : uniform_at(9, 0, static_cast<std::uint64_t>(i * n + j));
  auto const found = solve(cost, n, n);
  for (index_t i = 0; i < n; ++i) CHECK(found[static_cast<std::size_t>(i)] == (i * 7 + 3) % n);
}

TEST_CASE("edges: empty, one, all equal, more rows than columns, NaN") {
  CHECK(solve({}, 0, 0).empty());
  CHECK(solve({}, 0, 3).empty());
  CHECK(solve({4}, 1, 1) == std::vector<index_t>{0});
  CHECK(solve({2, 2, 2, 2}, 2, 2) == std::vector<index_t>{0, 1});
  CHECK_THROWS_AS(solve({1, 2}, 2, 1), error);
  CHECK_THROWS_AS(solve({std::nan("")}, 1, 1), numeric_error);
}

}  // namespace linalg_assignment_test
