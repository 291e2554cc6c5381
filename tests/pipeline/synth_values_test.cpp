// Random weights: position decides the value, moments are as promised, threads change nothing.
#include <slimtrim/pipeline/synth_values.hpp>

#include <slimtrim/core/thread_pool.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

namespace pipeline_synth_values_test {

using namespace slimtrim;

TEST_CASE("pieces equal the whole") {
  std::vector<bfloat16> whole(300001), part(1000);
  fill_random(nullptr, whole, 0, 7, 9, 0.5F);
  for (std::size_t const first : {std::size_t{0}, std::size_t{65532}, std::size_t{299000}}) {
    fill_random(nullptr, part, first, 7, 9, 0.5F);
    for (std::size_t i = 0; i < part.size(); ++i) REQUIRE(part[i].bits == whole[first + i].bits);
  }
  std::vector<bfloat16> threaded(whole.size());
  thread_pool pool(3);
  fill_random(&pool, threaded, 0, 7, 9, 0.5F);
  for (std::size_t i = 0; i < whole.size(); ++i) REQUIRE(threaded[i].bits == whole[i].bits);
}

TEST_CASE("mean, deviation and reach") {
  std::vector<bfloat16> values(1 << 18);
  fill_random(nullptr, values, 0, 1, 2, 2.0F);
  double sum = 0, squares = 0, largest = 0;
  for (bfloat16 const v : values) {
    double const x = static_cast<double>(static_cast<float>(v));
    sum += x;
    squares += x * x;
    largest = std::max(largest, std::fabs(x));
  }
  double const n = static_cast<double>(values.size());
  // Five standard errors: 2 / sqrt(n) for the mean; the fourth moment of four bytes is below 3 deviations^4, so the
  // variance of the squares is below 2 * 16.
  CHECK(std::fabs(sum / n) < 5 * 2 / std::sqrt(n));
  CHECK(std::fabs(squares / n - 4) < 5 * std::sqrt(32 / n) + 4 * 0x1p-8);
  CHECK(largest <= 2 * 3.46);
}

TEST_CASE("seed and name make different values") {
  CHECK(name_stream("a") != name_stream("b"));
  CHECK(name_stream("") == 0xcbf29ce484222325U);
  std::vector<bfloat16> a(64), b(64), c(64);
  fill_random(nullptr, a, 0, 1, 2, 1);
  fill_random(nullptr, b, 0, 2, 2, 1);
  fill_random(nullptr, c, 0, 1, 3, 1);
  int same = 0;
  for (std::size_t i = 0; i < 64; ++i) same += (a[i].bits == b[i].bits) + (a[i].bits == c[i].bits);
  CHECK(same < 16);
}

}  // namespace pipeline_synth_values_test
