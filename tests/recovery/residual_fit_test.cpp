#include <slimtrim/recovery/residual_fit.hpp>

#include <doctest/doctest.h>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/thread_pool.hpp>

#include <slim/support.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace recovery_residual_fit_test {

using namespace slimtrim;
using namespace slimtrim_test;

namespace {

// E = R - Z Wᵀ for a target R.
matrix<float> remaining(matrix<float> const& R, matrix<float> const& Z, matrix<float> const& W) {
  matrix<float> E(R.extent(0), R.extent(1));
  for (index_t t = 0; t < R.extent(0); ++t)
    for (index_t i = 0; i < R.extent(1); ++i) {
      double sum = static_cast<double>(R(t, i));
      for (index_t j = 0; j < Z.extent(1); ++j) sum -= static_cast<double>(Z(t, j)) * static_cast<double>(W(i, j));
      E(t, i) = static_cast<float>(sum);
    }
  return E;
}

matrix<float> target(matrix<float> const& Z, matrix<float> const& W, double noise, std::uint64_t seed) {
  matrix<float> R(Z.extent(0), W.extent(0));
  for (index_t t = 0; t < R.extent(0); ++t)
    for (index_t i = 0; i < R.extent(1); ++i) {
      double sum = noise * normal_at(seed, static_cast<std::uint64_t>(t), static_cast<std::uint64_t>(i));
      for (index_t j = 0; j < Z.extent(1); ++j) sum += static_cast<double>(Z(t, j)) * static_cast<double>(W(i, j));
      R(t, i) = static_cast<float>(sum);
    }
  return R;
}

residual_moments moments(matrix<float> const& Z, matrix<float> const& E) {
  residual_moments m(Z.extent(1), E.extent(1));
  eigen_backend const backend;
  index_t const half = Z.extent(0) / 2;  // in two batches
  m.add(backend, rows(Z.view(), 0, half), rows(E.view(), 0, half));
  m.add(backend, rows(Z.view(), half, Z.extent(0) - half), rows(E.view(), half, Z.extent(0) - half));
  return m;
}

double energy(matrix<float> const& E) {
  double sum = 0;
  for (index_t t = 0; t < E.extent(0); ++t)
    for (index_t i = 0; i < E.extent(1); ++i) sum += static_cast<double>(E(t, i)) * static_cast<double>(E(t, i));
  return sum;
}

}  // namespace

TEST_CASE("the fit is the minimum of the ridge objective, and its errors are those of the tokens") {
  auto const Z = random_input(120, 14, 71);
  auto const old = random_weight(6, 14, 72), wanted = random_weight(6, 14, 73);
  auto const R = target(Z, wanted, 0.3, 74);
  auto const E = remaining(R, Z, old);
  auto W = old.clone();
  auto const report = residual_fit(eigen_backend{}, moments(Z, E), nullptr, W.view(), {.ridges = {0.05}});
  CHECK(report.changed);
  CHECK(report.ridge == 0.05);
  CHECK(report.energy == doctest::Approx(energy(E)).epsilon(1e-5));
  CHECK(report.error == doctest::Approx(energy(remaining(R, Z, W))).epsilon(1e-3));
  double unit = 0;
  for (index_t j = 0; j < 14; ++j)
    for (index_t t = 0; t < 120; ++t) unit += static_cast<double>(Z(t, j)) * static_cast<double>(Z(t, j)) / 14;
  // Gradient: Zᵀ (Z Wᵀ - R) + lambda (W - W_old)ᵀ = 0.
  auto const left = remaining(R, Z, W);
  for (index_t j = 0; j < 14; ++j)
    for (index_t i = 0; i < 6; ++i) {
      double slope = 0.05 * unit * static_cast<double>(W(i, j) - old(i, j)), size = std::fabs(slope);
      for (index_t t = 0; t < 120; ++t) {
        slope -= static_cast<double>(Z(t, j)) * static_cast<double>(left(t, i));
        size += std::fabs(static_cast<double>(Z(t, j)) * static_cast<double>(left(t, i)));
      }
      CHECK(std::fabs(slope) <= 1e-4 * size + 1e-4);
    }
}

TEST_CASE("a residual of zero leaves the weights alone, exactly") {
  auto const Z = random_input(40, 8, 75);
  auto W = random_weight(3, 8, 76);
  auto const before = W.clone();
  matrix<float> E(40, 3);
  E.fill(0.0F);
  CHECK_FALSE(residual_fit(eigen_backend{}, moments(Z, E), nullptr, W.view()).changed);
  for (index_t i = 0; i < 3; ++i)
    for (index_t j = 0; j < 8; ++j) CHECK(W(i, j) == before(i, j));
}

TEST_CASE("held-out tokens choose the ridge, and choose no change when there is nothing to learn") {
  auto const Z = random_input(30, 20, 77), Y = random_input(200, 20, 770);
  auto const old = random_weight(5, 20, 78), wanted = random_weight(5, 20, 79);
  residual_fit_options const options{.ridges = {1e-6, 0.01, 0.1, 1.0}};
  {
    auto W = old.clone();
    auto const fitted = moments(Z, remaining(target(Z, wanted, 1.0, 80), Z, old));
    auto const R = target(Y, wanted, 1.0, 81);
    auto const held_out = moments(Y, remaining(R, Y, old));
    auto const report = residual_fit(eigen_backend{}, fitted, &held_out, W.view(), options);
    CHECK(report.changed);
    CHECK(report.held_out_error == doctest::Approx(energy(remaining(R, Y, W))).epsilon(1e-3));
    for (double const ridge : options.ridges) {
      auto other = old.clone();
      (void)residual_fit(eigen_backend{}, fitted, nullptr, other.view(), {.ridges = {ridge}});
      CHECK(report.held_out_error <= energy(remaining(R, Y, other)) * 1.001);
    }
  }
  {
    // Residuals that have nothing to do with the features.
    auto W = old.clone();
    auto const fitted = moments(Z, remaining(target(Z, old, 1.0, 82), Z, old));
    auto const held_out = moments(Y, remaining(target(Y, old, 1.0, 83), Y, old));
    auto const report = residual_fit(eigen_backend{}, fitted, &held_out, W.view(), {.ridges = {1e-6, 0.01}});
    CHECK_FALSE(report.changed);
    CHECK(report.held_out_error == report.held_out_energy);
    CHECK(W(2, 3) == old(2, 3));
  }
}

TEST_CASE("degenerate moments change nothing or stay finite") {
  auto W = random_weight(3, 6, 84);
  auto const before = W.clone();
  residual_moments empty(6, 3);
  CHECK_FALSE(residual_fit(eigen_backend{}, empty, nullptr, W.view()).changed);
  auto bad = moments(random_input(10, 6, 85), random_input(10, 3, 86));
  bad.gram(1, 2) = std::numeric_limits<float>::quiet_NaN();
  CHECK_FALSE(residual_fit(eigen_backend{}, bad, nullptr, W.view()).changed);
  CHECK(W(1, 1) == before(1, 1));
  for (float factor : {1e-15F, 1e15F}) {
    auto one = random_input(1, 6, 87);  // a single token
    for (index_t j = 0; j < 6; ++j) one(0, j) *= factor;
    (void)residual_fit(eigen_backend{}, moments(one, random_input(1, 3, 88)), nullptr, W.view());
    for (index_t i = 0; i < 3; ++i)
      for (index_t j = 0; j < 6; ++j) REQUIRE(std::isfinite(W(i, j)));
  }
  CHECK_THROWS_AS((void)residual_fit(eigen_backend{}, empty, nullptr, W.view(), {.ridges = {}}), error);
  CHECK_THROWS_AS((void)residual_fit(eigen_backend{}, empty, nullptr, W.view(), {.ridges = {0.0}}), error);
  matrix<float> wrong(3, 7);
  CHECK_THROWS_AS((void)residual_fit(eigen_backend{}, empty, nullptr, wrong.view()), error);
}

TEST_CASE("a unit of one's own for the ridges") {
  auto const Z = random_input(60, 6, 71);
  auto const E = random_input(60, 4, 72);
  auto const m = moments(Z, E);
  matrix<float> a(4, 6), b(4, 6);
  a.fill(0.0F);
  b.fill(0.0F);
  double const usual = m.mean_diagonal(eigen_backend{});
  (void)residual_fit(eigen_backend{}, m, nullptr, a.view(), {.ridges = {0.3}});
  (void)residual_fit(eigen_backend{}, m, nullptr, b.view(), {.ridges = {0.6}, .unit = usual / 2});
  for (index_t i = 0; i < 4; ++i)
    for (index_t j = 0; j < 6; ++j) CHECK(a(i, j) == b(i, j));
}

TEST_CASE("the split fit takes the ridge from held-out tokens and then fits to all") {
  auto const Z = random_input(120, 6, 73);
  auto const W = random_weight(4, 6, 74);
  matrix<float> const R = target(Z, W, 0.05, 75);
  split_moments split(6, 4);
  residual_moments all(6, 4);
  split.fitted.add(eigen_backend{}, rows(Z.view(), 0, 80), rows(R.view(), 0, 80));
  split.held_out.add(eigen_backend{}, rows(Z.view(), 80, 40), rows(R.view(), 80, 40));
  split.judged = true;
  all.add(eigen_backend{}, rows(Z.view(), 0, 80), rows(R.view(), 0, 80));
  all.add(eigen_backend{}, rows(Z.view(), 80, 40), rows(R.view(), 80, 40));
  matrix<float> found(4, 6), expected(4, 6);
  found.fill(0.0F);
  expected.fill(0.0F);
  auto const report = fit_split(eigen_backend{}, split, found.view(), {});
  CHECK(report.changed);
  CHECK(report.held_out_error < report.held_out_energy);
  (void)residual_fit(eigen_backend{}, all, nullptr, expected.view(), {.ridges = {report.ridge}});
  for (index_t i = 0; i < 4; ++i)
    for (index_t j = 0; j < 6; ++j) CHECK(found(i, j) == doctest::Approx(expected(i, j)).epsilon(1e-4));
}

}  // namespace recovery_residual_fit_test
