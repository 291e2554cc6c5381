#include <slimtrim/core/random.hpp>
#include <slimtrim/statistics/exact_sum.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

namespace statistics_exact_sum_test {

using namespace slimtrim;

TEST_CASE("to_fixed rounds to nearest, ties to even") {
  CHECK(to_fixed(3.0, 0, "x") == 3);
  CHECK(to_fixed(-3.0, 0, "x") == -3);
  CHECK(to_fixed(2.5, 0, "x") == 2);
  CHECK(to_fixed(3.5, 0, "x") == 4);
  CHECK(to_fixed(-3.5, 0, "x") == -4);
  CHECK(to_fixed(2.5000001, 0, "x") == 3);
  CHECK(to_fixed(0.5, 1, "x") == 1);
  CHECK(to_fixed(0.0, 80, "x") == 0);
  CHECK(to_fixed(0x1p-65, 64, "x") == 0);    // half a step: to even
  CHECK(to_fixed(0x1.8p-64, 64, "x") == 2);  // 1.5 steps: to even
  CHECK(to_fixed(1e-300, 64, "x") == 0);
  CHECK(to_fixed(std::numeric_limits<double>::denorm_min(), 64, "x") == 0);
  CHECK(to_fixed(1.0, 80, "x") == static_cast<int128_t>(1) << 80);
}

TEST_CASE("to_fixed agrees with scaling in long double where that is exact") {
  for (std::uint64_t i = 0; i < 1000; ++i) {
    double const value = std::ldexp(normal_at(1, 0, i), static_cast<int>(i % 40) - 20);
    auto const expected = static_cast<long long>(std::rint(std::ldexp(value, 30)));
    CHECK(static_cast<long long>(to_fixed(value, 30, "x")) == expected);
    CHECK(from_fixed(to_fixed(value, 80, "x"), 80) == doctest::Approx(value).epsilon(1e-15));
  }
}

TEST_CASE("what does not fit or is not finite is refused by name") {
  double const inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH_AS(to_fixed(nan, 64, "norms"), "norms: expected a finite contribution", numeric_error);
  CHECK_THROWS_AS(to_fixed(-inf, 64, "norms"), numeric_error);
  CHECK_THROWS_AS(to_fixed(1e30, 64, "norms"), numeric_error);
  int128_t const half = static_cast<int128_t>(1) << 126;
  CHECK_THROWS_AS(add_fixed(half, half, "norms"), numeric_error);
}

TEST_CASE("sums are the same in any order and partition") {
  exact_sum forward(64), backward(64), left(64), right(64);
  for (std::uint64_t i = 0; i < 500; ++i) {
    double const value = std::exp(10 * normal_at(2, 0, i));
    forward.add(value);
    backward.add(std::exp(10 * normal_at(2, 0, 499 - i)));
    (i % 3 == 0 ? left : right).add(value);
  }
  right.merge(left);
  CHECK((forward.total() == backward.total()));
  CHECK((forward.total() == right.total()));
  exact_sum other(80);
  CHECK_THROWS_AS(other.merge(left), error);
}

}  // namespace statistics_exact_sum_test
