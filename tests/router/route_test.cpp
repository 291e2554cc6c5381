#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/router/route.hpp>
#include <slimtrim/tensor/buffer.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace router_route_test {

using namespace slimtrim;

namespace {

struct routed {
  std::vector<std::int32_t> indices;
  std::vector<float> weights;
  std::vector<float> probabilities;
};

template <class B = reference_backend>
routed run(std::vector<float> const& logits, index_t experts, routing_rule const& rule,
           std::vector<float> const& bias = {}, std::vector<std::uint8_t> const& kept = {}, B const& backend = {}) {
  index_t const tokens = static_cast<index_t>(logits.size()) / experts;
  auto const slots = static_cast<std::size_t>(tokens * rule.top_k);
  routed r{std::vector<std::int32_t>(slots), std::vector<float>(slots), std::vector<float>(logits.size())};
  route(backend, matrix_view<float const>(logits.data(), tokens, experts), rule,
        bias.empty() ? vector_view<float const>{} : vector_view<float const>(bias.data(), bias.size()),
        matrix_view<std::int32_t>(r.indices.data(), tokens, rule.top_k),
        matrix_view<float>(r.weights.data(), tokens, rule.top_k),
        matrix_view<float>(r.probabilities.data(), tokens, experts),
        kept.empty() ? vector_view<std::uint8_t const>{} : vector_view<std::uint8_t const>(kept.data(), kept.size()));
  return r;
}

float log_of(double p) { return static_cast<float>(std::log(p)); }
float logit_of(double p) { return static_cast<float>(std::log(p / (1 - p))); }
auto near(double value) { return doctest::Approx(value).epsilon(1e-6); }
using ints = std::vector<std::int32_t>;

// Probabilities .1 .4 .2 .3, whatever the shift.
std::vector<float> const four{log_of(.1) + 5, log_of(.4) + 5, log_of(.2) + 5, log_of(.3) + 5};

}  // namespace

TEST_CASE("Mixtral: softmax, top-k, renormalised") {
  auto const r = run(four, 4, {});
  CHECK(r.indices == ints{1, 3});
  CHECK(r.weights[0] == near(.4 / .7));
  CHECK(r.weights[1] == near(.3 / .7));
  CHECK(r.probabilities[0] == near(.1));
  CHECK(r.probabilities[1] == near(.4));
}

TEST_CASE("Qwen2-MoE, OLMoE, DeepSeek-MoE: softmax, top-k, as they are") {
  auto const r = run(four, 4, {.renormalise = false});
  CHECK(r.indices == ints{1, 3});
  CHECK(r.weights[0] == near(.4));
  CHECK(r.weights[1] == near(.3));
}

TEST_CASE("gpt-oss: top-k logits, then softmax over the selected") {
  auto const r = run(four, 4, {.select_before_score = true, .renormalise = false});
  CHECK(r.indices == ints{1, 3});
  CHECK(r.weights[0] == near(.4 / .7));
  CHECK(r.weights[1] == near(.3 / .7));
  CHECK(r.probabilities[2] == near(.2));
}

TEST_CASE("Llama-4: the sigmoid of the best logit") {
  auto const r = run({-1, 2, 0}, 3,
                     {.score = score_function::sigmoid, .top_k = 1, .select_before_score = true, .renormalise = false});
  CHECK(r.indices == ints{1});
  CHECK(r.weights[0] == near(1 / (1 + std::exp(-2.0))));
}

TEST_CASE("DeepSeek-V2: the best expert decides which groups stay") {
  // Groups {0,1} {2,3} {4,5}; group maxima .30 .25 .26. Without groups the choice would be 0 and 1.
  std::vector<float> const logits{log_of(.30), log_of(.02), log_of(.25), log_of(.07), log_of(.26), log_of(.10)};
  auto const one = run(logits, 6, {.renormalise = false, .scale = 16, .groups = 3, .groups_kept = 1});
  CHECK(one.indices == ints{0, 1});
  CHECK(one.weights[0] == near(16 * .30));
  CHECK(one.weights[1] == near(16 * .02));
  auto const two = run(logits, 6, {.top_k = 3, .renormalise = false, .groups = 3, .groups_kept = 2});
  CHECK(two.indices == ints{0, 4, 5});
}

TEST_CASE("DeepSeek-V3: bias selects, the sigmoid alone weighs, groups by their two best") {
  std::vector<float> const logits{logit_of(.9), logit_of(.1), logit_of(.6), logit_of(.5),
                                  logit_of(.2), logit_of(.3), logit_of(.4), logit_of(.35)};
  routing_rule const rule{.score = score_function::sigmoid,
                          .top_k = 2,
                          .weight_sum_epsilon = 1e-20,
                          .scale = 2.5F,
                          .selection_bias = true,
                          .groups = 4,
                          .groups_kept = 1,
                          .group_by = group_score::top_two_sum};
  // Without bias: two-best sums 1.0, 1.1, .5, .75, so group 1 wins although expert 0 is the best of all.
  auto const plain = run(logits, 8, rule, std::vector<float>(8, 0.0F));
  CHECK(plain.indices == ints{2, 3});
  CHECK(plain.weights[0] == near(2.5 * .6 / 1.1));
  CHECK(plain.weights[1] == near(2.5 * .5 / 1.1));
  // A bias of .5 on expert 7 lifts group 3 to 1.25; the weights do not see the bias, the slot order does.
  auto const biased = run(logits, 8, rule, {0, 0, 0, 0, 0, 0, 0, .5F});
  CHECK(biased.indices == ints{7, 6});
  CHECK(biased.weights[0] == near(2.5 * .35 / .75));
  CHECK(biased.weights[1] == near(2.5 * .4 / .75));
  CHECK(biased.probabilities[7] == near(.35));
}

TEST_CASE("a negative bias never lets an expert of a masked group in") {
  routing_rule const rule{
      .score = score_function::sigmoid, .top_k = 3, .selection_bias = true, .groups = 2, .groups_kept = 1};
  auto const r = run({0, 0, 0, 0}, 4, rule, {-2, -3, -4, -5});
  CHECK(r.indices == ints{0, 1, no_expert});
  CHECK(r.weights[2] == 0);
}

TEST_CASE("ERNIE-4.5: the floor of the weight sum; sqrt-softplus of DeepSeek-V4") {
  auto const r = run(four, 4, {.weight_sum_floor = 2});
  CHECK(r.weights[0] == near(.2));
  auto const s = run({0, 1}, 2, {.score = score_function::sqrt_softplus, .renormalise = false, .scale = 1.5F});
  CHECK(s.indices == ints{1, 0});
  CHECK(s.weights[0] == near(1.5 * std::sqrt(std::log(1 + std::exp(1.0)))));
  CHECK(s.weights[1] == near(1.5 * std::sqrt(std::log(2.0))));
}

TEST_CASE("removed experts are as if they were not there") {
  auto const masked = run(four, 4, {}, {}, {1, 0, 1, 1});
  auto const without = run({four[0], four[2], four[3]}, 3, {});
  CHECK(masked.indices == ints{3, 2});
  CHECK(without.indices == ints{2, 1});
  CHECK(masked.weights == without.weights);
  CHECK(masked.probabilities[0] == without.probabilities[0]);
  CHECK(masked.probabilities[1] == 0);
  CHECK(masked.probabilities[3] == without.probabilities[2]);
}

TEST_CASE("more slots than experts: all are used") {
  auto const r = run({log_of(.25), log_of(.75)}, 2, {.top_k = 4});
  CHECK(r.indices == ints{1, 0, no_expert, no_expert});
  CHECK(r.weights[0] == near(.75));
  CHECK(r.weights[1] == near(.25));
  CHECK(r.weights[3] == 0);
  auto const nobody = run({1, 2}, 2, {}, {}, {0, 0});
  CHECK(nobody.indices == ints{no_expert, no_expert});
  CHECK(nobody.weights == std::vector<float>{0, 0});
  CHECK(nobody.probabilities == std::vector<float>{0, 0});
}

TEST_CASE("ties go to the lower index, extreme logits stay finite") {
  CHECK(run({1, 1, 1, 1}, 4, {}).indices == ints{0, 1});
  auto const wide = run({3e38F, -3e38F, 0}, 3, {});
  CHECK(wide.indices == ints{0, 1});  // both others underflow to probability 0: a tie
  CHECK(wide.weights[0] == 1);
  CHECK(wide.weights[1] == 0);
  // The bias prefers experts whose probability underflows: the ratio is still theirs.
  auto const lifted = run({1000, 0, 0}, 3, {.selection_bias = true}, {-9, 0, 0});
  CHECK(lifted.indices == ints{1, 2});
  CHECK(lifted.weights == std::vector<float>{.5F, .5F});
}

TEST_CASE("NaN and +infinity are reported by place; -infinity removes; shapes are checked") {
  float const nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH_AS(run({0, 1, 2, nan}, 2, {}), "route: logits[1, 1]: expected a finite number", numeric_error);
  CHECK_THROWS_AS(run({0, inf}, 2, {}), numeric_error);
  CHECK(run({0, -inf, 0}, 3, {}).indices == ints{0, 2});
  CHECK_THROWS_AS(run({0, 1}, 2, {}, {0.0F, 0.0F}), error);          // bias without selection_bias
  CHECK_THROWS_AS(run({0, 1}, 2, {.selection_bias = true}), error);  // selection_bias without bias
  CHECK_THROWS_AS(run({0, 1}, 2, {}, {}, {1, 1, 1}), error);
}

TEST_CASE("no tokens, and the same bits on any executor") {
  CHECK(run({}, 4, {}).indices.empty());
  std::vector<float> logits(static_cast<std::size_t>(200 * 16));
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(normal_at(3, 0, i));
  thread_pool pool(3);
  auto const a = run(logits, 16, {.top_k = 4});
  auto const b = run(logits, 16, {.top_k = 4}, {}, {}, eigen_backend{pool});
  CHECK(a.indices == b.indices);
  CHECK(a.weights == b.weights);
  CHECK(a.probabilities == b.probabilities);
}

}  // namespace router_route_test
