#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/statistics/layer_statistics.hpp>
#include <statistics/toy_layer.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <vector>

namespace statistics_layer_statistics_test {

using namespace slimtrim;

namespace {

bool same_bits(layer_statistics const& a, layer_statistics const& b) {
  std::vector<int128_t> left, right;
  a.visit([&](exact_array const& x) { left.insert(left.end(), x.totals().begin(), x.totals().end()); });
  b.visit([&](exact_array const& x) { right.insert(right.end(), x.totals().begin(), x.totals().end()); });
  return left == right;
}

}  // namespace

TEST_CASE("a window fed as an engine feeds it, against loops over tokens") {
  auto s = toy::everything();
  toy::window const w(1);
  w.feed(reference_backend{}, s);
  for (index_t e = 0; e < toy::experts; ++e) {
    double count = 0, weighted = 0, change_weighted = 0, mean = 0, energy = 0, probability = 0;
    for (index_t t = 0; t < toy::tokens; ++t) {
      probability += static_cast<double>(w.probabilities(t, e));
      for (index_t slot = 0; slot < 2; ++slot) {
        if (w.indices(t, slot) != e) continue;
        double const g = static_cast<double>(w.weights(t, slot));
        double const cosine =
            cosine_similarity(reference_backend{}, row(w.residual.view(), t), row(w.block_output.view(), t));
        double const h = static_cast<double>(w.activation(e, t, 2));
        ++count;
        weighted += g * w.norm(e, t);
        change_weighted += (1 - cosine) * g * w.norm(e, t);
        mean += static_cast<double>(w.output(e, t, 3));
        energy += g * g * h * h;
      }
    }
    CHECK(s.router.count(e) == count);
    CHECK(s.router.probability(e) == doctest::Approx(probability));
    CHECK(s.norms.weighted(e) == doctest::Approx(weighted).epsilon(1e-6));
    CHECK(s.norms.change_weighted(e) == doctest::Approx(change_weighted).epsilon(1e-5));
    CHECK(s.norms.weighted(e) == doctest::Approx(1.5 * s.norms.renormalised_weighted(e)).epsilon(1e-6));
    CHECK(s.outputs->mean(e)[3] == doctest::Approx(count > 0 ? mean / count : 0));
    CHECK(s.neurons->weighted(e, 2) == doctest::Approx(energy));
  }
  CHECK(s.router.unreached() == std::vector<index_t>{4});
}

TEST_CASE("parts merged in any order are the whole, bit for bit, on any executor") {
  auto whole = toy::everything(), left = toy::everything(), right = toy::everything(), threaded = toy::everything();
  thread_pool pool(3);
  for (std::uint64_t i = 0; i < 6; ++i) {
    toy::window const w(i);
    w.feed(eigen_backend{}, whole);
    w.feed(eigen_backend{}, i % 2 == 0 ? left : right);
  }
  for (std::uint64_t i = 6; i-- > 0;) toy::window(i).feed(eigen_backend{pool}, threaded);
  CHECK(same_bits(whole, threaded));
  right.merge(left);
  CHECK(same_bits(whole, right));
  CHECK_FALSE(same_bits(whole, left));
}

TEST_CASE("layers with other tables do not merge") {
  auto a = toy::everything();
  layer_statistics const b({.experts = toy::experts});
  CHECK_THROWS_AS(a.merge(b), error);
}

}  // namespace statistics_layer_statistics_test
