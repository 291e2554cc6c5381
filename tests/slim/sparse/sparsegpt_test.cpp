#include <slimtrim/slim/sparse/sparsegpt.hpp>

#include <doctest/doctest.h>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/slim/sparse/magnitude.hpp>

#include <slim/support.hpp>
#include <slim/textbook.hpp>

#include <limits>

namespace slim_sparse_sparsegpt_test {

using namespace slimtrim;
using namespace slimtrim_test;

namespace {

struct problem {
  matrix<float> W = random_weight(32, 96, 121);
  matrix<float> X = random_input(400, 96, 122);
  matrix<float> H = gram_of(X);
};

// N:M as the paper has it, row by row in float64: the mask of a group is chosen when the sweep reaches it.
double textbook_error(problem const& p, index_t keep, index_t of) {
  auto const order = natural_order(96);
  auto const R = upper_factor_of_inverse(p.H, order, 0.01);
  std::vector<bool> kept(96);
  auto const Q = textbook_sweep(p.W, order, R, [&](std::size_t, std::size_t j, std::vector<double> const& w) {
    std::size_t const m = static_cast<std::size_t>(of);
    if (j % m == 0) {
      std::vector<std::pair<double, std::size_t>> scored;
      for (std::size_t k = j; k < j + m; ++k) scored.emplace_back(w[k] * w[k] / (R[k][k] * R[k][k]), k);
      std::sort(scored.begin(), scored.end());
      for (std::size_t k = 0; k < m; ++k) kept[scored[k].second] = k >= m - static_cast<std::size_t>(keep);
    }
    return kept[j] ? w[j] : 0.0;
  });
  return output_error(p.W, [&](index_t i, index_t j) { return Q[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)]; }, p.X);
}

}  // namespace

TEST_CASE("N:M is no worse than the textbook in float64") {
  problem const p;
  for (index_t of : {4, 8})
    for (index_t block : {8, 128}) {
      index_t const keep = of / 2;
      auto const result = sparsegpt(eigen_backend{}, p.W, as_const(p.H.view()), {.pattern = {.keep = keep, .of = of}, .block = block});
      double const ours = output_error(p.W, result.weight, p.X);
      CHECK(ours <= 1.01 * textbook_error(p, keep, of));
      CHECK(result.report.error == doctest::Approx(ours).epsilon(1e-3));
      CHECK(follows(result.kept.view(), {.keep = keep, .of = of}));
    }
}

TEST_CASE("SparseGPT < Wanda < magnitude, unstructured and N:M") {
  problem const p;
  std::vector<float> moments(96);
  for (index_t j = 0; j < 96; ++j) moments[static_cast<std::size_t>(j)] = p.H(j, j);
  for (sparsity const pattern : {sparsity{.rate = 0.5}, sparsity{.keep = 2, .of = 4}, sparsity{.rate = 0.7}}) {
    auto const masked = [&](mask const& m) {
      return output_error(p.W, [&](index_t i, index_t j) { return m(i, j) ? p.W(i, j) : 0.0F; }, p.X);
    };
    auto const result = sparsegpt(eigen_backend{}, p.W, as_const(p.H.view()), {.pattern = pattern});
    double const updated = output_error(p.W, result.weight, p.X);
    double const wanda = masked(wanda_mask(eigen_backend{}, p.W, vector_view<float const>(moments.data(), 96), pattern));
    CHECK(updated < 0.8 * wanda);
    CHECK(wanda < masked(magnitude_mask(eigen_backend{}, p.W, pattern)));
    index_t zeros = 0;
    for (index_t i = 0; i < 32; ++i)
      for (index_t j = 0; j < 96; ++j) {
        if (!result.kept(i, j)) CHECK(result.weight(i, j) == 0.0F);
        zeros += result.kept(i, j) ? 0 : 1;
      }
    CHECK(zeros == (pattern.structured() ? 32 * 48 : pattern.pruned_of(32 * 96)));
  }
}

TEST_CASE("with a grid: pruned stay zero, kept lie on the grid, codes and weights agree") {
  problem const p;
  for (bool symmetric : {true, false}) {
    sparsegpt_options options{.pattern = {.keep = 2, .of = 4}};
    options.quantize = quantize_options{.grid = {4, symmetric}, .groups = {group_kind::group, 32}, .scale = scale_rule::weighted};
    auto const result = sparsegpt(eigen_backend{}, p.W, as_const(p.H.view()), options);
    REQUIRE(result.quantized.has_value());
    auto const v = result.quantized->view();
    for (index_t i = 0; i < 32; ++i)
      for (index_t j = 0; j < 96; ++j) {
        REQUIRE(v(i, j) == result.weight(i, j));
        if (!result.kept(i, j)) REQUIRE(v(i, j) == 0.0F);
      }
    // Rounding after the fact cannot take part in the compensation.
    auto const pruned = sparsegpt(eigen_backend{}, p.W, as_const(p.H.view()), {.pattern = {.keep = 2, .of = 4}});
    auto const after = rtn(eigen_backend{}, pruned.weight, *options.quantize);
    CHECK(output_error(p.W, result.weight, p.X) < output_error(p.W, after.view(), p.X));
  }
}

TEST_CASE("a mask that is given is kept, and the sweep makes up for it") {
  problem const p;
  std::vector<float> moments(96);
  for (index_t j = 0; j < 96; ++j) moments[static_cast<std::size_t>(j)] = p.H(j, j);
  mask const given = wanda_mask(eigen_backend{}, p.W, vector_view<float const>(moments.data(), 96), {.rate = 0.5});
  sparsegpt_options options;
  options.given = &given;
  auto const result = sparsegpt(eigen_backend{}, p.W, as_const(p.H.view()), options);
  for (index_t i = 0; i < 32; ++i)
    for (index_t j = 0; j < 96; ++j) {
      REQUIRE(result.kept(i, j) == given(i, j));
      if (!given(i, j)) REQUIRE(result.weight(i, j) == 0.0F);
    }
  auto const masked = [&](index_t i, index_t j) { return given(i, j) ? p.W(i, j) : 0.0F; };
  CHECK(output_error(p.W, result.weight, p.X) < 0.8 * output_error(p.W, masked, p.X));
  // Never worse than the mask alone, row by row, even where the Hessian is of no use.
  matrix<float> zero(96, 96);
  zero.fill(0.0F);
  auto const plain = sparsegpt(eigen_backend{}, p.W, as_const(zero.view()), options);
  for (index_t i = 0; i < 32; ++i)
    for (index_t j = 0; j < 96; ++j) REQUIRE(plain.weight(i, j) == masked(i, j));
  mask const wrong(31, 96);
  options.given = &wrong;
  CHECK_THROWS_AS((void)sparsegpt(eigen_backend{}, p.W, as_const(p.H.view()), options), error);
}

TEST_CASE("any number of threads gives the same bytes") {
  problem const p;
  for (sparsity const pattern : {sparsity{.rate = 0.5}, sparsity{.keep = 2, .of = 4}}) {
    auto const alone = sparsegpt(eigen_backend{}, p.W, as_const(p.H.view()), {.pattern = pattern});
    thread_pool pool(3);
    auto const other = sparsegpt(eigen_backend(pool), p.W, as_const(p.H.view()), {.pattern = pattern});
    for (index_t i = 0; i < 32; ++i)
      for (index_t j = 0; j < 96; ++j) REQUIRE(alone.weight(i, j) == other.weight(i, j));
  }
}

TEST_CASE("bad Hessians: never a NaN, never worse than Wanda with N:M") {
  problem const p;
  for (index_t tokens : {0, 1, 2, 20}) {
    auto const X = random_input(tokens, 96, 130);
    auto const H = gram_of(X);
    auto const result = sparsegpt(eigen_backend{}, p.W, as_const(H.view()), {.pattern = {.keep = 2, .of = 4}});
    std::vector<float> moments(96);
    for (index_t j = 0; j < 96; ++j) moments[static_cast<std::size_t>(j)] = H(j, j);
    auto const m = wanda_mask(eigen_backend{}, p.W, vector_view<float const>(moments.data(), 96), {.keep = 2, .of = 4});
    double const wanda = output_error(p.W, [&](index_t i, index_t j) { return m(i, j) ? p.W(i, j) : 0.0F; }, X);
    CHECK(output_error(p.W, result.weight, X) <= wanda * (1 + 1e-5) + 1e-9);
    CHECK(result.report.second_order == (tokens > 0));
  }
  for (float factor : {0.0F, 0x1p-100F, 0x1p100F, std::numeric_limits<float>::infinity()}) {
    auto H = p.H.clone();
    for (index_t i = 0; i < 96; ++i)
      for (index_t j = 0; j < 96; ++j) H(i, j) *= factor;
    for (sparsity const pattern : {sparsity{.rate = 0.5}, sparsity{.keep = 2, .of = 4}}) {
      auto const result = sparsegpt(eigen_backend{}, p.W, as_const(H.view()), {.pattern = pattern});
      CHECK(follows(result.kept.view(), pattern));
      for (index_t i = 0; i < 32; ++i)
        for (index_t j = 0; j < 96; ++j) REQUIRE(std::isfinite(result.weight(i, j)));
    }
  }
}

TEST_CASE("dead inputs are not zeroed for being dead; bad weights are named") {
  problem p;
  for (index_t i = 0; i < 96; ++i) p.H(i, 5) = p.H(5, i) = 0;
  auto const result = sparsegpt(eigen_backend{}, p.W, as_const(p.H.view()), {.pattern = {.keep = 4, .of = 4}});
  CHECK(result.report.dead_columns == 1);
  for (index_t i = 0; i < 32; ++i) CHECK(result.weight(i, 5) == p.W(i, 5));
  p.W(1, 2) = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS((void)sparsegpt(eigen_backend{}, p.W, as_const(p.H.view()), {}), input_error);
}

}  // namespace slim_sparse_sparsegpt_test
