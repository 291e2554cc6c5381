#include <slimtrim/model/moe.hpp>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <numeric>

namespace model_moe_test {

using namespace slimtrim;

namespace {

tensor<float, 2> normal(index_t n, index_t m, std::uint64_t stream, double size = 0.5) {
  tensor<float, 2> x(n, m);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < m; ++j)
      x(i, j) = static_cast<float>(size * normal_at(9, stream, static_cast<std::uint64_t>(i * m + j)));
  return x;
}

swiglu_weights random_swiglu(index_t hidden, index_t width, std::uint64_t stream) {
  return {own_weight(normal(width, hidden, stream)), own_weight(normal(width, hidden, stream + 1)),
          own_weight(normal(hidden, width, stream + 2))};
}

moe_weights random_moe(index_t hidden, index_t experts, index_t top_k) {
  moe_weights moe;
  moe.router = own_weight(normal(experts, hidden, 1));
  moe.rule.top_k = top_k;
  for (index_t e = 0; e < experts; ++e)
    moe.experts.push_back({random_swiglu(hidden, 5 + e, 10 + 3 * static_cast<std::uint64_t>(e)), {}});
  return moe;
}

using row_values = std::vector<double>;

row_values times(weight const& w, row_values const& x) {
  auto const dense = expand(w.view);
  row_values y(static_cast<std::size_t>(dense.extent(0)), 0.0);
  for (index_t o = 0; o < dense.extent(0); ++o)
    for (index_t i = 0; i < dense.extent(1); ++i)
      y[static_cast<std::size_t>(o)] += static_cast<double>(dense(o, i)) * x[static_cast<std::size_t>(i)];
  return y;
}

row_values naive_swiglu(swiglu_weights const& w, row_values const& x) {
  row_values g = times(w.gate, x), u = times(w.up, x);
  for (std::size_t i = 0; i < g.size(); ++i) g[i] = g[i] / (1 + std::exp(-g[i])) * u[i];
  return times(w.down, g);
}

// One token: every expert's probability, the top_k largest, their sum as the equation says.
row_values naive_moe(moe_weights const& moe, row_values const& x) {
  row_values p = times(moe.router, x);
  double sum = 0;
  for (double& each : p) sum += each = std::exp(each);
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p[a] > p[b]; });
  order.resize(static_cast<std::size_t>(moe.rule.top_k));
  double divisor = sum;
  if (moe.rule.renormalise) {
    divisor = 0;
    for (std::size_t const e : order) divisor += p[e];
  }
  row_values y = moe.shared ? naive_swiglu(*moe.shared, x) : row_values(x.size(), 0.0);
  for (std::size_t const e : order) {
    double const w = p[e] / divisor;
    row_values in = x;
    if (moe.rule.weight_scales_input)
      for (double& each : in) each *= w;
    row_values out = moe.experts[e].is_novice()
                         ? row_values(moe.experts[e].novice.begin(), moe.experts[e].novice.end())
                         : naive_swiglu(moe.experts[e].swiglu, in);
    for (std::size_t j = 0; j < y.size(); ++j) y[j] += (moe.rule.weight_scales_input ? 1 : w) * out[j];
  }
  return y;
}

template <class B>
double worst_error(B const& backend, moe_weights const& moe, index_t tokens, index_t hidden) {
  auto const X = normal(tokens, hidden, 77, 1);
  tensor<float, 2> Y(tokens, hidden);
  Y.fill(99);
  forward_workspace work;
  moe_layer(backend, moe, 0, X.view(), Y.view(), work);
  double worst = 0;
  for (index_t t = 0; t < tokens; ++t) {
    row_values x;
    for (index_t j = 0; j < hidden; ++j) x.push_back(static_cast<double>(X(t, j)));
    auto const expected = naive_moe(moe, x);
    for (index_t j = 0; j < hidden; ++j)
      worst = std::max(worst, std::abs(static_cast<double>(Y(t, j)) - expected[static_cast<std::size_t>(j)]));
  }
  return worst;
}

// Values of size 10 and sums of at most 40 products in float.
constexpr double tolerance = 3e-5;

}  // namespace

TEST_CASE("equals the equation token by token; widths differ from expert to expert") {
  eigen_backend const backend;
  for (index_t const tokens : {0, 1, 2, 50}) {
    CHECK(worst_error(backend, random_moe(12, 6, 2), tokens, 12) < tolerance);
    CHECK(worst_error(backend, random_moe(12, 4, 4), tokens, 12) < tolerance);
    CHECK(worst_error(backend, random_moe(12, 1, 1), tokens, 12) < tolerance);
  }
  CHECK(worst_error(reference_backend(), random_moe(12, 6, 3), 9, 12) < tolerance);
}

TEST_CASE("shared experts, novices, other rules") {
  eigen_backend const backend;
  auto moe = random_moe(12, 6, 2);
  moe.shared = random_swiglu(12, 9, 500);
  CHECK(worst_error(backend, moe, 40, 12) < tolerance);
  moe.rule.renormalise = false;
  CHECK(worst_error(backend, moe, 40, 12) < tolerance);
  moe.experts[2] = expert_weights{};
  moe.experts[2].novice.assign(12, 0.25F);
  CHECK(worst_error(backend, moe, 40, 12) < tolerance);
  moe.rule.weight_scales_input = true;
  moe.experts[2] = expert_weights{random_swiglu(12, 3, 600), {}};
  CHECK(worst_error(backend, moe, 40, 12) < tolerance);
}

TEST_CASE("any executor gives the same bits") {
  auto moe = random_moe(12, 6, 2);
  auto const X = normal(300, 12, 3, 1);
  tensor<float, 2> a(300, 12), b(300, 12);
  forward_workspace work;
  thread_pool pool(3);
  moe_layer(eigen_backend(), moe, 0, X.view(), a.view(), work);
  moe_layer(eigen_backend(pool), moe, 0, X.view(), b.view(), work);
  CHECK(std::memcmp(a.view().data, b.view().data, 300 * 12 * sizeof(float)) == 0);
}

namespace {

struct inside_observer {
  std::vector<index_t> order;
  tensor<float, 2>* sum = nullptr;
  index_t pairs = 0;
  void expert_output(index_t layer, expert_batch const& batch, matrix_view<float const> O) {
    CHECK(layer == 5);
    order.push_back(batch.expert);
    CHECK(batch.tokens.size() == batch.weights.size());
    CHECK(O.extent(0) == static_cast<index_t>(batch.tokens.size()));
    pairs += O.extent(0);
    for (std::size_t i = 0; i < batch.tokens.size(); ++i)
      for (index_t j = 0; j < O.extent(1); ++j)
        (*sum)(batch.tokens[i], j) += batch.weights[i] * O(static_cast<index_t>(i), j);
  }
};

struct fusing_backend : eigen_backend {
  mutable int calls = 0;
  void moe_layer(moe_weights const&, matrix_view<float const>, matrix_view<float>, forward_workspace&) const { ++calls; }
};
static_assert(fuses_moe_layer<fusing_backend> && !fuses_moe_layer<eigen_backend>);

}  // namespace

TEST_CASE("an observer sees what is added, in expert order; novices too") {
  auto moe = random_moe(12, 6, 2);
  moe.experts[4] = expert_weights{};
  moe.experts[4].novice.assign(12, 0.5F);
  auto const X = normal(64, 12, 3, 1);
  tensor<float, 2> Y(64, 12), sum(64, 12);
  sum.fill(0);
  inside_observer seen;
  seen.sum = &sum;
  forward_workspace work;
  moe_layer(eigen_backend(), moe, 5, X.view(), Y.view(), work, seen);
  CHECK(seen.order == std::vector<index_t>{0, 1, 2, 3, 4, 5});
  CHECK(seen.pairs == 128);
  for (index_t t = 0; t < 64; ++t)
    for (index_t j = 0; j < 12; ++j) CHECK(Y(t, j) == doctest::Approx(sum(t, j)).epsilon(1e-5));
}

TEST_CASE("a backend's own layer is taken, except when somebody looks inside") {
  fusing_backend const backend;
  auto const moe = random_moe(12, 3, 1);
  auto const X = normal(4, 12, 3, 1);
  tensor<float, 2> Y(4, 12), sum(4, 12);
  forward_workspace work;
  moe_layer(backend, moe, 5, X.view(), Y.view(), work);
  CHECK(backend.calls == 1);
  sum.fill(0);
  inside_observer seen;
  seen.sum = &sum;
  moe_layer(backend, moe, 5, X.view(), Y.view(), work, seen);
  CHECK(backend.calls == 1);
  CHECK(seen.pairs == 4);
}

TEST_CASE("inconsistent weights are refused") {
  auto moe = random_moe(12, 3, 1);
  moe.experts.pop_back();
  tensor<float, 2> X(1, 12), Y(1, 12);
  X.fill(0);
  forward_workspace work;
  CHECK_THROWS_AS(moe_layer(eigen_backend(), moe, 0, X.view(), Y.view(), work), error);
  auto poisoned = random_moe(12, 3, 1);
  X(0, 0) = std::nanf("");
  CHECK_THROWS_AS(moe_layer(eigen_backend(), poisoned, 0, X.view(), Y.view(), work), numeric_error);
}

}  // namespace model_moe_test
