#include <slimtrim/model/sampler.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <limits>

namespace model_sampler_test {

using namespace slimtrim;

namespace {

vector_view<float const> view(std::vector<float> const& values) {
  return vector_view<float const>(values.data(), values.size());
}

}  // namespace

TEST_CASE("greedy takes the largest, the first among equals") {
  sampler draw;
  CHECK(draw(view({1, 3, 2}), 0, 0) == 1);
  CHECK(draw(view({3, 1, 3}), 5, 9) == 0);
  CHECK(draw(view({-1}), 0, 0) == 0);
}

TEST_CASE("draws follow softmax(logits / temperature)") {
  // 20000 draws of probability p deviate by more than 4 standard deviations in 1 of 16000 tests; the seed is fixed.
  std::vector<float> const logits{0, 1, 2, -1};
  double const temperature = 0.7;
  sampler draw({.temperature = temperature, .seed = 5});
  std::array<int, 4> counts{};
  int const draws = 20000;
  for (int i = 0; i < draws; ++i) ++counts[draw(view(logits), 0, static_cast<std::uint64_t>(i))];
  double sum = 0;
  for (float const each : logits) sum += std::exp(static_cast<double>(each) / temperature);
  for (std::size_t i = 0; i < 4; ++i) {
    double const p = std::exp(static_cast<double>(logits[i]) / temperature) / sum;
    CHECK(std::abs(counts[i] - p * draws) < 4 * std::sqrt(draws * p * (1 - p)));
  }
}

TEST_CASE("top_k and top_p limit what can be drawn") {
  std::vector<float> const logits{0, 3, 2.9F, -1, 2.8F};
  sampler two({.temperature = 5, .top_k = 2}), nucleus({.temperature = 1, .top_p = 0.5});
  for (std::uint64_t i = 0; i < 300; ++i) {
    auto const a = two(view(logits), 1, i), b = nucleus(view(logits), 1, i);
    CHECK((a == 1 || a == 2));
    CHECK((b == 1 || b == 2));
  }
  // The most likely token alone exceeds the sum.
  sampler one({.temperature = 1, .top_p = 1e-9});
  CHECK(one(view(logits), 0, 0) == 1);
}

TEST_CASE("a draw depends on seed, sequence and step alone") {
  std::vector<float> const logits(50, 0.0F);
  sampler a({.temperature = 1, .seed = 1}), b({.temperature = 1, .seed = 1});
  auto const late = a(view(logits), 2, 40);
  static_cast<void>(b(view(logits), 0, 0));
  CHECK(b(view(logits), 2, 40) == late);
}

TEST_CASE("bad options and NaN are refused, -infinity is never drawn") {
  CHECK_THROWS_AS(sampler({.temperature = -1}), error);
  CHECK_THROWS_AS(sampler({.top_k = -1}), error);
  CHECK_THROWS_AS(sampler({.top_p = 0}), error);
  CHECK_THROWS_AS(sampler({.top_p = 1.5}), error);
  sampler draw({.temperature = 1});
  CHECK_THROWS_AS(static_cast<void>(draw(view({0, std::nanf("")}), 0, 0)), numeric_error);
  CHECK_THROWS_AS(static_cast<void>(draw(view({}), 0, 0)), error);
  for (std::uint64_t i = 0; i < 100; ++i)
    CHECK(draw(view({-std::numeric_limits<float>::infinity(), 0}), 0, i) == 1);
}

}  // namespace model_sampler_test
