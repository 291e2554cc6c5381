#include <slimtrim/slim/sparse/wanda.hpp>

#include <doctest/doctest.h>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/thread_pool.hpp>

#include <slim/support.hpp>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

namespace slim_sparse_wanda_test {

using namespace slimtrim;
using namespace slimtrim_test;

namespace {

// The paper's definition in float64: score, stable sort of each row or group, prune from the front.
mask textbook(matrix<float> const& W, matrix<float> const& X, sparsity const& pattern) {
  mask m(W.extent(0), W.extent(1));
  for (index_t r = 0; r < W.extent(0); ++r) {
    index_t const group = pattern.structured() ? pattern.of : W.extent(1);
    for (index_t first = 0; first < W.extent(1); first += group) {
      std::vector<std::pair<double, index_t>> scored;
      for (index_t c = first; c < std::min(W.extent(1), first + group); ++c) {
        double sum = 0;
        for (index_t t = 0; t < X.extent(0); ++t) sum += static_cast<double>(X(t, c)) * static_cast<double>(X(t, c));
        scored.emplace_back(std::fabs(static_cast<double>(W(r, c))) * std::sqrt(sum), c);
      }
      std::sort(scored.begin(), scored.end());
      index_t const n = static_cast<index_t>(scored.size());
      index_t const pruned = pattern.structured() ? std::max<index_t>(0, n - pattern.keep) : pattern.pruned_of(n);
      for (index_t k = 0; k < pruned; ++k) m.set(r, scored[static_cast<std::size_t>(k)].second, false);
    }
  }
  return m;
}

std::vector<float> moments_of(matrix<float> const& X) {
  std::vector<float> out(static_cast<std::size_t>(X.extent(1)));
  for (index_t c = 0; c < X.extent(1); ++c) {
    double sum = 0;
    for (index_t t = 0; t < X.extent(0); ++t) sum += static_cast<double>(X(t, c)) * static_cast<double>(X(t, c));
    out[static_cast<std::size_t>(c)] = static_cast<float>(sum);
  }
  return out;
}

vector_view<float const> seen(std::vector<float> const& v) { return vector_view<float const>(v.data(), v.size()); }

bool equal(mask const& a, mask const& b) {
  for (index_t r = 0; r < a.rows(); ++r)
    for (index_t c = 0; c < a.columns(); ++c)
      if (a(r, c) != b(r, c)) return false;
  return true;
}

}  // namespace

TEST_CASE("the mask equals the textbook's") {
  auto const W = random_weight(20, 150, 7);
  auto const X = random_input(90, 150, 8);
  auto const moments = moments_of(X);
  thread_pool pool(3);
  for (sparsity const pattern : {sparsity{.rate = 0.5}, sparsity{.rate = 0.37}, sparsity{.keep = 2, .of = 4}, sparsity{.keep = 4, .of = 8},
                                 sparsity{.keep = 1, .of = 4}, sparsity{.keep = 3, .of = 7}}) {
    auto const m = wanda_mask(eigen_backend{}, W, seen(moments), pattern);
    CHECK(equal(m, textbook(W, X, pattern)));
    CHECK(equal(m, wanda_mask(eigen_backend(pool), W, seen(moments), pattern)));
  }
}

TEST_CASE("router-weighted scores: moments of gate times input") {
  auto const W = random_weight(8, 32, 9);
  auto X = random_input(60, 32, 10);
  for (index_t t = 0; t < 60; ++t)
    for (index_t c = 0; c < 32; ++c) X(t, c) *= 0.1F + 0.01F * static_cast<float>(t);
  CHECK(equal(wanda_mask(eigen_backend{}, W, seen(moments_of(X)), {.rate = 0.5}), textbook(W, X, {.rate = 0.5})));
}

TEST_CASE("scaling the moments changes nothing, however far; no activity leaves magnitude") {
  auto const W = random_weight(8, 64, 11);
  auto const moments = moments_of(random_input(60, 64, 12));
  auto const expected = wanda_mask(eigen_backend{}, W, seen(moments), {.rate = 0.5});
  for (float factor : {0x1p100F, 0x1p-100F}) {
    auto scaled = moments;
    for (float& m : scaled) m *= factor;
    CHECK(equal(expected, wanda_mask(eigen_backend{}, W, seen(scaled), {.rate = 0.5})));
  }
  std::vector<float> const zero(64, 0.0F), ones(64, 1.0F), bad(64, std::numeric_limits<float>::infinity());
  auto const by_size = wanda_mask(eigen_backend{}, W, seen(ones), {.keep = 2, .of = 4});
  CHECK(equal(by_size, wanda_mask(eigen_backend{}, W, seen(zero), {.keep = 2, .of = 4})));
  CHECK(equal(by_size, wanda_mask(eigen_backend{}, W, seen(bad), {.keep = 2, .of = 4})));
}

TEST_CASE("shapes and values are checked") {
  auto W = random_weight(8, 64, 13);
  std::vector<float> const ones(63, 1.0F), fitting(64, 1.0F);
  CHECK_THROWS_AS((void)wanda_mask(eigen_backend{}, W, seen(ones), {.rate = 0.5}), error);
  W(7, 63) = -std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH_AS((void)wanda_mask(eigen_backend{}, W, seen(fitting), {.rate = 0.5}),
                       "wanda_mask: W[7, 63]: expected a finite value, found Inf", input_error);
}

}  // namespace slim_sparse_wanda_test
