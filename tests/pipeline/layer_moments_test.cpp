// Moments of half a layer: Hessians and joint fits against sums written out.
#include <slimtrim/pipeline/layer_moments.hpp>

#include <slimtrim/backend/reference.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace pipeline_layer_moments_test {

using namespace slimtrim;

namespace {

tensor<float, 2> noise(index_t n, index_t m, std::uint32_t seed) {
  tensor<float, 2> out(n, m);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < m; ++j) {
      seed = seed * 1664525U + 1013904223U;
      out(i, j) = static_cast<float>(seed >> 8) / 8388608.0F - 1.0F;
    }
  return out;
}

// Sum over rows of a(t, i) b(t, j), in double.
double product(tensor<float, 2> const& a, index_t i, tensor<float, 2> const& b, index_t j) {
  double sum = 0;
  for (index_t t = 0; t < a.extent(0); ++t) sum += static_cast<double>(a(t, i)) * static_cast<double>(b(t, j));
  return sum;
}

// Rows as a fit counts them: by 1 / |row of the original stream|.
tensor<float, 2> counted(tensor<float, 2> values, tensor<float, 2> const& original) {
  for (index_t t = 0; t < values.extent(0); ++t) {
    double square = 0;
    for (index_t j = 0; j < original.extent(1); ++j) square += static_cast<double>(original(t, j)) * static_cast<double>(original(t, j));
    for (index_t j = 0; j < values.extent(1); ++j) values(t, j) = static_cast<float>(static_cast<double>(values(t, j)) / std::sqrt(square));
  }
  return values;
}

// What float sums of these products may be off: a few roundings of each term and one a sum, 6e-8 each.
double slack(tensor<float, 2> const& a, index_t i, tensor<float, 2> const& b, index_t j) {
  double sum = 0;
  for (index_t t = 0; t < a.extent(0); ++t) sum += std::fabs(static_cast<double>(a(t, i)) * static_cast<double>(b(t, j)));
  return 1e-6 * sum;
}

}  // namespace

TEST_CASE("Hessians of expert inputs, plain, weighted by the gate and by what tokens count") {
  reference_backend const backend;
  tensor<float, 2> const X = noise(5, 3, 1);
  std::vector<std::int32_t> const tokens{0, 2, 3, 5, 6};
  std::vector<float> const gates{0.5F, 0.25F, 1.0F, 0.75F, 0.125F};
  std::vector<float> const some{2.0F, 9.0F, 0.5F, 1.0F, 9.0F, 0.25F, 3.0F};  // of all tokens of the batch
  for (int const kind : {0, 1, 2, 3}) {
    bool const weighted = kind % 2 == 1;
    std::vector<float> const token_factors = kind >= 2 ? some : std::vector<float>();
    std::vector<matrix<float>> hessians;
    hessians.push_back(zero_moments(3));
    hessians.push_back(zero_moments(3));
    std::vector<double> counts(4, 0.0), squares(4, 0.0);
    matrix<float> pooled = zero_moments(3);
    expert_input_observer<reference_backend> observer;
    observer.backend = &backend;
    observer.first = 0;
    observer.hessians = &hessians;
    observer.tokens = &counts;
    observer.squares = &squares;
    observer.counts = token_factors;
    observer.pooled = &pooled;
    observer.weighted = weighted;
    observer.feed_forward_input(0, X.view());
    expert_batch batch;
    batch.expert = 1;
    batch.tokens = tokens;
    batch.weights = gates;
    observer.expert_input(0, batch, X.view());
    batch.expert = 3;  // beyond the experts in flight: counted, not summed
    observer.expert_input(0, batch, X.view());
    CHECK(counts == std::vector<double>{0, 5, 0, 5});
    tensor<float, 2> scaled = X.clone();
    double expected_squares = 0;
    for (index_t t = 0; t < 5; ++t) {
      auto const row = static_cast<std::size_t>(t);
      float const factor = (weighted ? gates[row] : 1.0F) * (kind >= 2 ? some[static_cast<std::size_t>(tokens[row])] : 1.0F);
      expected_squares += static_cast<double>(factor) * static_cast<double>(factor);
      for (index_t j = 0; j < 3; ++j) scaled(t, j) *= factor;
    }
    CHECK(squares[1] == doctest::Approx(expected_squares));
    for (index_t i = 0; i < 3; ++i)
      for (index_t j = 0; j < 3; ++j) {
        CHECK(static_cast<double>(hessians[1](i, j)) == doctest::Approx(product(scaled, i, scaled, j)).epsilon(1e-5));
        CHECK(static_cast<double>(pooled(i, j)) == doctest::Approx(product(X, i, X, j)).epsilon(1e-5));
        CHECK(hessians[0](i, j) == 0);
      }
  }
}

TEST_CASE("joint moments are those of all features side by side") {
  reference_backend const backend;
  index_t const tokens = 7, out = 2;
  tensor<float, 2> const X = noise(tokens, out, 2), original = noise(tokens, out, 3);
  // Expert 0 sees tokens 0, 2, 5, expert 1 tokens 0, 1, 5, 6, expert 2 none, the shared expert all.
  std::vector<std::vector<std::int32_t>> const seen{{0, 2, 5}, {0, 1, 5, 6}, {}};
  std::vector<index_t> const offsets{0, 2, 5, 6};
  index_t const features = 8;
  split_moments fit(features, out);
  matrix<float> shared_hessian = zero_moments(2);
  hidden_observer<reference_backend> observer;
  observer.backend = &backend;
  observer.fit = &fit;
  observer.offsets = &offsets;
  observer.original = original.view();
  observer.counts = token_counts(backend, as_const(original.view()));
  observer.shared_hessian = &shared_hessian;
  tensor<float, 2> all(tokens, features);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t j = 0; j < features; ++j) all(t, j) = 0;
  observer.begin();
  for (std::size_t e = 2; e-- > 0;) {  // in any order
    index_t const width = offsets[e + 1] - offsets[e];
    tensor<float, 2> const H = noise(static_cast<index_t>(seen[e].size()), width, 10 + static_cast<std::uint32_t>(e));
    std::vector<float> gates;
    for (std::size_t i = 0; i < seen[e].size(); ++i) gates.push_back(0.25F * static_cast<float>(i + 1));
    for (std::size_t i = 0; i < seen[e].size(); ++i)
      for (index_t j = 0; j < width; ++j) all(seen[e][i], offsets[e] + j) = gates[i] * H(static_cast<index_t>(i), j);
    expert_batch batch;
    batch.expert = static_cast<index_t>(e);
    batch.tokens = seen[e];
    batch.weights = gates;
    observer.expert_hidden(0, batch, H.view());
  }
  tensor<float, 2> const shared = noise(tokens, 2, 20);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t j = 0; j < 2; ++j) all(t, 6 + j) = shared(t, j);
  observer.shared_hidden(0, shared.view());
  observer.end(X.view());
  CHECK_FALSE(fit.judged);
  complete_gram(fit.fitted.gram.view());
  tensor<float, 2> lacking(tokens, out);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t j = 0; j < out; ++j) lacking(t, j) = original(t, j) - X(t, j);
  lacking = counted(std::move(lacking), original);
  all = counted(std::move(all), original);
  double energy = 0;
  for (index_t j = 0; j < out; ++j) energy += product(lacking, j, lacking, j);
  for (index_t i = 0; i < features; ++i) {
    for (index_t j = 0; j < features; ++j)
      CHECK(std::fabs(static_cast<double>(fit.fitted.gram(i, j)) - product(all, i, all, j)) <= slack(all, i, all, j));
    for (index_t j = 0; j < out; ++j)
      CHECK(std::fabs(static_cast<double>(fit.fitted.cross(i, j)) - product(all, i, lacking, j)) <= slack(all, i, lacking, j));
  }
  CHECK(fit.fitted.energy == doctest::Approx(energy).epsilon(1e-5));
  CHECK(static_cast<double>(shared_hessian(0, 1)) == doctest::Approx(product(all, 6, all, 7)).epsilon(1e-5));
  CHECK(fit.held_out.energy == 0);
}

TEST_CASE("what an accelerator may sum, with and without a fit") {
  std::vector<matrix<float>> hessians;
  hessians.push_back(zero_moments(3));
  hessians.push_back(zero_moments(0));  // not wanted
  hessians.push_back(zero_moments(5));
  hidden_observer<reference_backend> hidden;
  hidden.first = 2;
  hidden.hessians = &hessians;
  hidden.weighted = false;
  gram_sums wanted;
  REQUIRE(hidden.sums(wanted));  // without a fit nobody says where features begin
  REQUIRE(wanted.expert_hidden.size() == 5);
  for (std::size_t e : {0U, 1U, 3U}) CHECK_FALSE(wanted.expert_hidden[e].wanted());
  CHECK(wanted.expert_hidden[2].H.data == hessians[0].view().data);
  CHECK(wanted.expert_hidden[4].H.data == hessians[2].view().data);
  CHECK_FALSE(wanted.expert_hidden[4].weighted);
  CHECK_FALSE(wanted.every_token_hidden.wanted());

  hidden_observer<reference_backend> shared;
  matrix<float> of_all = zero_moments(4);
  shared.shared_hessian = &of_all;
  gram_sums of_shared;
  REQUIRE(shared.sums(of_shared));
  CHECK(of_shared.expert_hidden.empty());
  CHECK(of_shared.every_token_hidden.H.data == of_all.view().data);

  split_moments fit(5, 2);
  hidden.fit = &fit;
  CHECK_FALSE(hidden.sums(wanted));
  context_observer<reference_backend> context;
  gram_sums of_context;
  REQUIRE(context.sums(of_context));
  CHECK_FALSE(of_context.attention_context.wanted());
  context.fit = &fit;
  CHECK_FALSE(context.sums(of_context));
}

TEST_CASE("moments of attention's output") {
  reference_backend const backend;
  tensor<float, 2> const Z = noise(6, 3, 4), X = noise(6, 2, 5), original = noise(6, 2, 6);
  split_moments fit(3, 2);
  matrix<float> hessian = zero_moments(3);
  context_observer<reference_backend> observer;
  observer.backend = &backend;
  observer.hessian = &hessian;
  observer.fit = &fit;
  observer.original = original.view();
  observer.counts = token_counts(backend, as_const(original.view()));
  observer.held_out = true;
  observer.attention_context(0, Z.view());
  observer.attention_residual(0, X.view());
  CHECK(fit.judged);
  CHECK(fit.fitted.energy == 0);
  CHECK(fit.held_out.energy > 0);
  tensor<float, 2> lacking(6, 2);
  for (index_t t = 0; t < 6; ++t)
    for (index_t j = 0; j < 2; ++j) lacking(t, j) = original(t, j) - X(t, j);
  lacking = counted(std::move(lacking), original);
  tensor<float, 2> const features = counted(Z.clone(), original);
  CHECK(static_cast<double>(hessian(1, 2)) == doctest::Approx(product(features, 1, features, 2)).epsilon(1e-5));
  CHECK(std::fabs(static_cast<double>(fit.held_out.cross(1, 0)) - product(features, 1, lacking, 0)) <= slack(features, 1, lacking, 0));
  CHECK(std::fabs(static_cast<double>(fit.held_out.gram(2, 0)) - product(features, 2, features, 0)) <= slack(features, 2, features, 0));
}

TEST_CASE("tokens count by the inverse of their norm, a row of zeros by 1") {
  tensor<float, 2> X(3, 2);
  for (index_t j = 0; j < 2; ++j) X(0, j) = X(1, j) = X(2, j) = 0;
  X(0, 0) = 3;
  X(0, 1) = -4;
  X(2, 1) = 0.5F;
  CHECK(token_counts(reference_backend(), as_const(X.view())) == std::vector<float>{0.2F, 1, 2});
}

TEST_CASE("a fit finds what is lacking, and leaves the weight alone when held-out tokens disagree") {
  reference_backend const backend;
  tensor<float, 2> const Z = noise(60, 4, 7), held = noise(30, 4, 8), change = noise(3, 4, 9);
  auto const lacking = [&](tensor<float, 2> const& features, float sign) {
    tensor<float, 2> E(features.extent(0), 3);
    for (index_t t = 0; t < features.extent(0); ++t)
      for (index_t r = 0; r < 3; ++r) {
        E(t, r) = 0;
        for (index_t j = 0; j < 4; ++j) E(t, r) += sign * change(r, j) * features(t, j);
      }
    return E;
  };
  split_moments good(4, 3);
  tensor<float, 2> const E = lacking(Z, 1), F = lacking(held, 1), G = lacking(held, -1);
  good.fitted.add(backend, Z.view(), E.view());
  good.held_out.add(backend, held.view(), F.view());
  good.judged = true;
  matrix<float> weight(3, 4);
  weight.fill(1.0F);
  residual_fit_report const report = fit_split(backend, good, weight.view(), {.ridges = {0.5, 1e-6}});
  CHECK(report.changed);
  CHECK(report.ridge == 1e-6);
  for (index_t r = 0; r < 3; ++r)
    for (index_t j = 0; j < 4; ++j) CHECK(std::fabs(weight(r, j) - 1.0F - change(r, j)) < 1e-3F);

  split_moments bad(4, 3);
  bad.fitted.add(backend, Z.view(), E.view());
  bad.held_out.add(backend, held.view(), G.view());
  bad.judged = true;
  weight.fill(1.0F);
  CHECK_FALSE(fit_split(backend, bad, weight.view(), {}).changed);
  for (index_t r = 0; r < 3; ++r)
    for (index_t j = 0; j < 4; ++j) CHECK(weight(r, j) == 1.0F);
  // Nothing lacks: nothing changes.
  split_moments none(4, 3);
  CHECK_FALSE(fit_split(backend, none, weight.view(), {}).changed);
}

}  // namespace pipeline_layer_moments_test
