#include <slimtrim/router/dispatch.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <vector>

namespace router_dispatch_test {

using namespace slimtrim;

namespace {
std::vector<std::int32_t> list(std::span<std::int32_t const> x) { return {x.begin(), x.end()}; }
using ints = std::vector<std::int32_t>;
}  // namespace

TEST_CASE("tokens of each expert in order, with their slots; an expert that nobody chose is empty") {
  ints const indices{2, 0,   //
                     0, 2,   //
                     3, -1,  //
                     2, 3};
  auto const d = group_by_expert(matrix_view<std::int32_t const>(indices.data(), 4, 2), 5);
  CHECK(d.experts() == 5);
  CHECK(d.pairs() == 7);
  CHECK(d.offsets == std::vector<index_t>{0, 2, 2, 5, 7, 7});
  CHECK(list(d.tokens_of(0)) == ints{0, 1});
  CHECK(list(d.slots_of(0)) == ints{1, 0});
  CHECK(d.tokens_of(1).empty());
  CHECK(list(d.tokens_of(2)) == ints{0, 1, 3});
  CHECK(list(d.slots_of(2)) == ints{0, 1, 0});
  CHECK(list(d.tokens_of(3)) == ints{2, 3});
  CHECK(list(d.slots_of(3)) == ints{0, 1});
  CHECK(d.count(4) == 0);
}

TEST_CASE("no tokens; a wrong index; storage is reused") {
  dispatch d = group_by_expert(matrix_view<std::int32_t const>(nullptr, 0, 2), 3);
  CHECK(d.pairs() == 0);
  ints const wrong{0, 3};
  CHECK_THROWS_WITH_AS(group_by_expert(matrix_view<std::int32_t const>(wrong.data(), 1, 2), 3),
                       "group_by_expert: indices[0, 1]: expected an expert below 3, found 3", error);
  ints const one{1};
  group_by_expert(matrix_view<std::int32_t const>(one.data(), 1, 1), 2, d);
  CHECK(list(d.tokens_of(1)) == ints{0});
}

}  // namespace router_dispatch_test
