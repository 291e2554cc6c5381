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

TEST_CASE("sums that were worked out elsewhere are added part by part, and only where they fit") {
  layer_statistics s({.experts = 2, .hidden = 1, .intermediate = 2, .outputs = true, .neurons = true});
  layer_sums sums;
  sums.similarity = {{1, 0.5F}, {1, 1}, {0, 0}, {0.25F, 0.75F}, {4, 9}, {1, 0}};
  sums.router = router_sums{2, {1, 1}, {0.75, 1.25}, {1, 1}, {0.5, 1}, {1, 1}, {1, 0, 0, 1}, {0.5, 0, 0.25, 1}};
  sums.norms = expert_norm_sums{{3, 4}, {9, 16}, {3, 4}, {1, 2}, {3, 4}, {9, 16}, {0.75, 1}, {2, 5}, {9, 0, 0, 16}};
  sums.outputs = expert_output_sums{{1, 1}, {3, -4}, {9, 16}};
  sums.neurons = neuron_sums{{1, 2, 3, 4}, {5, 6, 7, 8}};
  for (int window = 0; window < 2; ++window) {
    s.add(sums);
    s.commit_window();
  }
  CHECK(s.similarity.tokens() == 4);
  CHECK(s.similarity.block() == 0.75);
  CHECK(s.similarity.moe() == 0.5);
  CHECK(s.similarity.residual_norm() == 2.5);
  CHECK(s.similarity.residual_square() == 6.5);
  CHECK(s.similarity.change()[0] == 0.75);
  CHECK(s.router.count(1) == 2);
  CHECK(s.router.probability_product(0, 1) == 0.5);
  CHECK(s.norms.change_weighted(0) == 1.5);
  CHECK(s.norms.largest(1) == 5);  // the larger of both windows, not their sum
  CHECK(s.outputs->mean(1)[0] == -4);
  CHECK(s.neurons->weighted(1, 0) == 6);
  CHECK(s.neurons->plain(0, 1) == 12);
  // A layer without experts has cosines alone; what was not asked for is not looked at.
  layer_statistics dense({.experts = 0});
  layer_sums only;
  only.similarity = sums.similarity;
  only.neurons = sums.neurons;
  dense.add(only);
  dense.commit_window();
  CHECK(dense.similarity.attention() == 1);
  sums.neurons->plain.pop_back();
  CHECK_THROWS_AS(s.add(sums), error);
  sums.similarity.block.pop_back();
  CHECK_THROWS_AS(s.add(sums), error);
}

TEST_CASE("layers with other tables do not merge") {
  auto a = toy::everything();
  layer_statistics const b({.experts = toy::experts});
  CHECK_THROWS_AS(a.merge(b), error);
}

}  // namespace statistics_layer_statistics_test
