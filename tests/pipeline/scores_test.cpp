#include <doctest/doctest.h>
#include <slimtrim/pipeline/scores.hpp>
#include <slimtrim/tensor/buffer.hpp>

#include <array>
#include <cmath>

namespace pipeline_scores_test {

using namespace slimtrim;

TEST_CASE("uniform logits cost log V a token, and a base compared with itself diverges by nothing") {
  tensor<float, 2> logits(4, 8);
  logits.fill(3.5F);
  std::array<std::uint32_t, 4> const tokens{1, 2, 3, 4};
  auto const scores = compare_window(logits.view(), logits.view(), tokens);
  CHECK(scores.tokens == 3);
  CHECK(scores.nll == doctest::Approx(3 * std::log(8.0)));
  CHECK(scores.base_nll == doctest::Approx(scores.nll));
  CHECK(scores.agreements == 3);
  for (float kl : scores.kl) CHECK(kl == doctest::Approx(0.0));
  CHECK(score_window(logits.view(), tokens).nll == doctest::Approx(scores.nll));
}

TEST_CASE("the divergence of two known distributions, base first") {
  // p = (3/4, 1/4), q = (1/4, 3/4): KL(p || q) = 3/4 log 3 - 1/4 log 3 = 1/2 log 3.
  tensor<float, 2> p(2, 2), q(2, 2);
  for (index_t t = 0; t < 2; ++t) {
    p(t, 0) = std::log(3.0F), p(t, 1) = 0;
    q(t, 0) = 100, q(t, 1) = 100 + std::log(3.0F);  // a shift of all logits changes nothing
  }
  std::array<std::uint32_t, 2> const tokens{0, 1};
  auto const scores = compare_window(p.view(), q.view(), tokens);
  REQUIRE(scores.kl.size() == 1);
  CHECK(scores.kl[0] == doctest::Approx(0.5 * std::log(3.0)).epsilon(1e-5));
  CHECK(scores.agreements == 0);
  CHECK(scores.nll == doctest::Approx(std::log(4.0 / 3)).epsilon(1e-5));
  CHECK(scores.base_nll == doctest::Approx(std::log(4.0)).epsilon(1e-5));
}

TEST_CASE("sums of windows add, empty and single-token windows score nothing") {
  tensor<float, 2> logits(2, 3);
  logits.fill(0);
  std::array<std::uint32_t, 2> const tokens{0, 1};
  auto total = score_window(logits.view(), tokens);
  total.add(score_window(logits.view(), tokens));
  CHECK(total.tokens == 2);
  CHECK(total.nll == doctest::Approx(2 * std::log(3.0)));
  CHECK(score_window(logits.view(), std::span(tokens).first(1)).tokens == 0);
  CHECK(score_window(logits.view(), {}).tokens == 0);
}

TEST_CASE("percentiles are nearest ranks") {
  CHECK(percentile({4, 1, 3, 2}, 0.5) == 2.0);
  CHECK(percentile({4, 1, 3, 2}, 0.99) == 4.0);
  CHECK(percentile({4, 1, 3, 2}, 0.0) == 1.0);
  CHECK(percentile({}, 0.5) == 0.0);
}

}  // namespace pipeline_scores_test
