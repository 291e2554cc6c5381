#include <slimtrim/core/index.hpp>
#include <doctest/doctest.h>

#include <cstdint>
#include <initializer_list>

namespace core_index_test {

using namespace slimtrim;

static_assert(ceil_div(0, 4) == 0 && ceil_div(1, 4) == 1 && ceil_div(4, 4) == 1 && ceil_div(5, 4) == 2);

TEST_CASE("ceil_div and round_up agree with counting blocks") {
  for (index_t b = 1; b <= 9; ++b)
    for (index_t a = 0; a <= 40; ++a) {
      index_t blocks = 0;
      while (blocks * b < a) ++blocks;
      CHECK(ceil_div(a, b) == blocks);
      CHECK(round_up(a, b) == blocks * b);
    }
}

TEST_CASE("ceil_div does not wrap at the largest index") {
  CHECK(ceil_div(PTRDIFF_MAX, 1) == PTRDIFF_MAX);
  CHECK(ceil_div(PTRDIFF_MAX, 2) == PTRDIFF_MAX / 2 + 1);
}

TEST_CASE("checked arithmetic refuses exactly what does not fit") {
  std::uint64_t const big = UINT64_MAX;
  CHECK(checked_multiply(0, big) == 0);
  CHECK(checked_multiply(big, 0) == 0);
  CHECK(checked_multiply(1, big) == big);
  CHECK(checked_multiply(big, 1) == big);
  CHECK_FALSE(checked_multiply(2, big / 2 + 1).has_value());
  CHECK(checked_multiply(std::uint64_t{1} << 32, (std::uint64_t{1} << 32) - 1).has_value());
  CHECK_FALSE(checked_multiply(std::uint64_t{1} << 32, std::uint64_t{1} << 32).has_value());
  CHECK(checked_add(big, 0) == big);
  CHECK(checked_add(big - 1, 1) == big);
  CHECK_FALSE(checked_add(big, 1).has_value());
  CHECK_FALSE(checked_add(1, big).has_value());
}

}  // namespace core_index_test
