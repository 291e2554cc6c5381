#include <slimtrim/recovery/expert_fit.hpp>

#include <doctest/doctest.h>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/thread_pool.hpp>

#include <slim/support.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace recovery_expert_fit_test {

using namespace slimtrim;
using namespace slimtrim_test;

namespace {

double energy(matrix<float> const& E) {
  double sum = 0;
  for (index_t t = 0; t < E.extent(0); ++t)
    for (index_t i = 0; i < E.extent(1); ++i) sum += static_cast<double>(E(t, i)) * static_cast<double>(E(t, i));
  return sum;
}

// Four experts, each token goes to two of them; one expert gets none.
struct experts_problem {
  static constexpr index_t tokens = 160, in = 8, out = 5;
  matrix<float> all = random_input(tokens * 2, in, 91);
  std::vector<matrix<float>> weights;
  std::vector<expert_features> experts = std::vector<expert_features>(4);
  std::vector<matrix<float>> features;
  matrix<float> residual = random_input(tokens, out, 92);

  experts_problem() {
    for (std::size_t e = 0; e < 4; ++e) weights.push_back(random_weight(out, in, 93 + e));
    for (index_t t = 0; t < tokens; ++t) {
      experts[static_cast<std::size_t>(t % 3)].token_of.push_back(static_cast<std::int32_t>(t));
      experts[static_cast<std::size_t>((t + 1 + t / 3 % 2) % 3)].token_of.push_back(static_cast<std::int32_t>(t));
    }
    index_t next = 0;
    for (auto& expert : experts) {
      index_t const n = static_cast<index_t>(expert.token_of.size());
      features.emplace_back(n, in);
      for (index_t t = 0; t < n; ++t, ++next)
        for (index_t j = 0; j < in; ++j) features.back()(t, j) = all(next, j);
    }
    for (std::size_t e = 0; e < 4; ++e) {
      experts[e].features = stored_features(features[e].view());
      experts[e].weight = weights[e].view();
    }
  }

  // Features of all experts side by side, zero where a token does not visit.
  residual_moments joint_moments() const {
    matrix<float> Z(tokens, 4 * in);
    Z.fill(0.0F);
    for (std::size_t e = 0; e < 4; ++e)
      for (std::size_t t = 0; t < experts[e].token_of.size(); ++t)
        for (index_t j = 0; j < in; ++j)
          Z(experts[e].token_of[t], static_cast<index_t>(e) * in + j) = features[e](static_cast<index_t>(t), j);
    residual_moments m(4 * in, out);
    m.add(eigen_backend{}, as_const(Z.view()), as_const(residual.view()));
    return m;
  }
};

}  // namespace

TEST_CASE("many sweeps of block Gauss-Seidel reach the joint minimum") {
  experts_problem p;
  residual_moments const m = p.joint_moments();
  matrix<float> joint(p.out, 4 * p.in);
  joint.fill(0.0F);
  // A ridge so small that both forms are plain least squares.
  auto const report = residual_fit(eigen_backend{}, m, nullptr, joint.view(), {.ridges = {1e-5}});
  double const before = energy(p.residual);
  double last = before;
  for (int sweep = 0; sweep < 60; ++sweep) {
    (void)residual_fit_experts(eigen_backend{}, p.experts, p.residual.view(), {}, {.fit = {.ridges = {1e-5}}, .sweeps = 1});
    double const now = energy(p.residual);
    CHECK(now <= last * (1 + 1e-5));
    last = now;
  }
  CHECK(report.error < 0.9 * before);
  CHECK(last == doctest::Approx(report.error).epsilon(2e-3));
}

TEST_CASE("with one ridge the sweeps tend to the joint ridge fit, weights included") {
  experts_problem p;
  residual_moments const m = p.joint_moments();
  double const unit = m.mean_diagonal(eigen_backend{});
  matrix<float> joint(p.out, 4 * p.in);
  for (std::size_t e = 0; e < 4; ++e)
    for (index_t i = 0; i < p.out; ++i)
      for (index_t j = 0; j < p.in; ++j) joint(i, static_cast<index_t>(e) * p.in + j) = p.weights[e](i, j);
  auto const report = residual_fit(eigen_backend{}, m, nullptr, joint.view(), {.ridges = {0.3}, .unit = unit});
  (void)residual_fit_experts(eigen_backend{}, p.experts, p.residual.view(), {}, {.fit = {.ridges = {0.3}, .unit = unit}, .sweeps = 40, .rows_a_batch = 32});
  CHECK(energy(p.residual) == doctest::Approx(report.error).epsilon(1e-4));
  double worst = 0;
  for (std::size_t e = 0; e < 4; ++e)
    for (index_t i = 0; i < p.out; ++i)
      for (index_t j = 0; j < p.in; ++j)
        worst = std::max(worst, std::fabs(static_cast<double>(p.weights[e](i, j)) - static_cast<double>(joint(i, static_cast<index_t>(e) * p.in + j))));
  CHECK(worst < 1e-4);
}

TEST_CASE("an expert without tokens stays, the residual is kept up to date, threads change nothing") {
  experts_problem a, b, original;
  auto const untouched = a.weights[3].clone();
  auto const start = a.residual.clone();
  std::vector<char> held_out(static_cast<std::size_t>(a.tokens), 0);
  for (std::size_t t = 0; t < held_out.size(); ++t) held_out[t] = t / 8 % 4 == 3 ? 1 : 0;
  auto const reports = residual_fit_experts(eigen_backend{}, a.experts, a.residual.view(), held_out, {.rows_a_batch = 24});
  CHECK_FALSE(reports[3].changed);
  for (index_t i = 0; i < a.out; ++i)
    for (index_t j = 0; j < a.in; ++j) CHECK(a.weights[3](i, j) == untouched(i, j));
  CHECK(std::isfinite(energy(a.residual)));
  // What is left is what the weights as they stand leave.
  auto E = start.clone();
  for (std::size_t e = 0; e < 4; ++e)
    for (std::size_t t = 0; t < a.experts[e].token_of.size(); ++t)
      for (index_t i = 0; i < a.out; ++i)
        for (index_t j = 0; j < a.in; ++j)
          E(a.experts[e].token_of[t], i) -= a.features[e](static_cast<index_t>(t), j) * (a.weights[e](i, j) - original.weights[e](i, j));
  for (index_t t = 0; t < a.tokens; ++t)
    for (index_t i = 0; i < a.out; ++i) CHECK(E(t, i) == doctest::Approx(a.residual(t, i)).epsilon(1e-3).scale(1));
  thread_pool pool(3);
  (void)residual_fit_experts(eigen_backend(pool), b.experts, b.residual.view(), held_out, {.rows_a_batch = 24});
  for (index_t t = 0; t < a.tokens; ++t)
    for (index_t j = 0; j < a.out; ++j) CHECK(a.residual(t, j) == b.residual(t, j));
  a.experts[0].token_of[0] = 1000;
  CHECK_THROWS_AS((void)residual_fit_experts(eigen_backend{}, a.experts, a.residual.view()), error);
}

}  // namespace recovery_expert_fit_test
