// The loss of kept sets of experts, against outputs formed token by token with a router of its own.
#include <slimtrim/importance/reconstruction_tokens.hpp>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/importance/reconstruction.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace importance_reconstruction_tokens_test {

using namespace slimtrim;

namespace {

struct layer {
  index_t tokens, experts, hidden;
  tensor<float, 2> logits;
  std::vector<tensor<float, 2>> outputs;

  layer(index_t t, index_t e, index_t h, std::uint64_t seed) : tokens(t), experts(e), hidden(h), logits(t, e) {
    for (index_t i = 0; i < t; ++i)
      for (index_t j = 0; j < e; ++j) logits(i, j) = static_cast<float>(6 * uniform_at(seed, 1, static_cast<std::uint64_t>(i * e + j)) - 3);
    for (index_t j = 0; j < e; ++j) {
      outputs.emplace_back(t, h);
      for (index_t i = 0; i < t; ++i)
        for (index_t c = 0; c < h; ++c)
          outputs.back()(i, c) = static_cast<float>(2 * uniform_at(seed, 2 + static_cast<std::uint64_t>(j), static_cast<std::uint64_t>(i * h + c)) - 1);
    }
  }
  void feed(reconstruction_tokens& to) const {
    std::vector<matrix_view<float const>> views;
    for (auto const& each : outputs) views.push_back(each.view());
    to.add(eigen_backend(), logits.view(), views);
  }
  // Mixtral's rule: softmax over all that stay, the two largest, renormalised.
  std::vector<double> output(index_t t, std::vector<index_t> const& kept) const {
    std::vector<index_t> order = kept;
    std::stable_sort(order.begin(), order.end(), [&](index_t a, index_t b) { return logits(t, a) > logits(t, b); });
    double const a = std::exp(static_cast<double>(logits(t, order[0]))), b = std::exp(static_cast<double>(logits(t, order[1])));
    std::vector<double> y;
    for (index_t c = 0; c < hidden; ++c)
      y.push_back((a * static_cast<double>(outputs[static_cast<std::size_t>(order[0])](t, c)) +
                   b * static_cast<double>(outputs[static_cast<std::size_t>(order[1])](t, c))) / (a + b));
    return y;
  }
  double loss(std::vector<index_t> const& kept) const {
    std::vector<index_t> all;
    for (index_t j = 0; j < experts; ++j) all.push_back(j);
    double sum = 0;
    for (index_t t = 0; t < tokens; ++t) {
      auto const y = output(t, all), z = output(t, kept);
      for (std::size_t c = 0; c < y.size(); ++c) sum += (y[c] - z[c]) * (y[c] - z[c]);
    }
    return sum / static_cast<double>(tokens);
  }
};

}  // namespace

TEST_CASE("losses are those of the outputs, in one piece or several") {
  // More than one piece of 1024 tokens, fed in two parts.
  layer const a(900, 5, 7, 3), b(333, 5, 7, 4);
  reconstruction_tokens tokens(5, {});
  a.feed(tokens);
  std::vector<index_t> const kept{0, 2, 4};
  // Products in float, weights rounded to float: a few units of 2^-24 of sums of order 1.
  CHECK(tokens.loss(eigen_backend(), kept) == doctest::Approx(a.loss(kept)).epsilon(1e-5));
  b.feed(tokens);
  CHECK(tokens.tokens() == 1233);
  double const both = (a.loss(kept) * 900 + b.loss(kept) * 333) / 1233;
  CHECK(tokens.loss(eigen_backend(), kept) == doctest::Approx(both).epsilon(1e-5));
  thread_pool pool(3);
  CHECK(tokens.loss(eigen_backend(pool), kept) == tokens.loss(eigen_backend(), kept));
  std::vector<index_t> const all{0, 1, 2, 3, 4};
  CHECK(tokens.loss(eigen_backend(), all) == 0);
  // Fewer experts than slots: what is left takes all the weight.
  std::vector<index_t> const one{3};
  CHECK(tokens.loss(eigen_backend(), one) > tokens.loss(eigen_backend(), kept));
}

TEST_CASE("an expert that nobody chose costs nothing, equal experts replace each other") {
  layer some(40, 4, 3, 9);
  for (index_t t = 0; t < 40; ++t) {
    some.logits(t, 3) = -9;
    some.logits(t, 1) = some.logits(t, 2) - 0.5F;
    for (index_t c = 0; c < 3; ++c) some.outputs[1](t, c) = some.outputs[2](t, c);
  }
  reconstruction_tokens tokens(4, {});
  some.feed(tokens);
  std::vector<index_t> const without_last{0, 1, 2};
  CHECK(tokens.loss(eigen_backend(), without_last) == 0);
  reconstruction_result const best = reconstruct(4, 3, [&](std::span<index_t const> kept) { return tokens.loss(eigen_backend(), kept); });
  CHECK(best.kept == without_last);
}

TEST_CASE("rules: bias takes part in the choice only; inputs scaled by weights are refused") {
  routing_rule rule;
  rule.score = score_function::sigmoid;
  rule.selection_bias = true;
  rule.renormalise = false;
  rule.top_k = 1;
  reconstruction_tokens tokens(2, rule, {5.0F, 0.0F});
  tensor<float, 2> logits(1, 2), f0(1, 1), f1(1, 1);
  logits(0, 0) = 0;
  logits(0, 1) = 2;
  f0(0, 0) = 4;
  f1(0, 0) = 1;
  matrix_view<float const> const outputs[2] = {f0.view(), f1.view()};
  tokens.add(eigen_backend(), logits.view(), outputs);
  // F = sigmoid(0) * 4 = 2; without expert 0: sigmoid(2) * 1.
  double const sigmoid = 1 / (1 + std::exp(-2.0));
  std::vector<index_t> const second{1};
  CHECK(tokens.loss(eigen_backend(), second) == doctest::Approx((2 - sigmoid) * (2 - sigmoid)).epsilon(1e-6));
  rule.weight_scales_input = true;
  CHECK_THROWS_AS(reconstruction_tokens(2, rule, {0.0F, 0.0F}), error);
  reconstruction_tokens empty(3, {});
  std::vector<index_t> const none;
  CHECK_THROWS_AS(static_cast<void>(empty.loss(eigen_backend(), none)), error);
  CHECK(empty.loss(eigen_backend(), second) == 0);
  CHECK(reconstruction_tokens::floats_a_token(4) == 4 + 10);
}

}  // namespace importance_reconstruction_tokens_test
