#include <slimtrim/backend/reference.hpp>
#include <slimtrim/trim/merge_groups.hpp>
#include <statistics/toy_layer.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <cmath>
#include <numeric>
#include <vector>

namespace trim_merge_groups_test {

using namespace slimtrim;

namespace {
using list = std::vector<index_t>;
using groups = std::vector<std::vector<std::size_t>>;

// Points on a line; average linkage by hand: {0, 1} join at 1, then {5, 6.5} at 1.5, then {10} joins them at 4.25.
tensor<double, 2> line(std::vector<double> const& x) {
  tensor<double, 2> d(x.size(), x.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    for (std::size_t j = 0; j < x.size(); ++j) d(i, j) = std::fabs(x[i] - x[j]);
  return d;
}
}  // namespace

TEST_CASE("average linkage by hand") {
  auto const d = line({5, 0, 10, 1, 6.5});
  CHECK(average_linkage(d.view(), 5).size() == 5);
  CHECK(average_linkage(d.view(), 3) == groups{{0, 4}, {1, 3}, {2}});
  CHECK(average_linkage(d.view(), 2) == groups{{0, 2, 4}, {1, 3}});
  CHECK(average_linkage(d.view(), 1) == groups{{0, 1, 2, 3, 4}});
  CHECK_THROWS_AS(average_linkage(d.view(), 0), error);
  auto const even = line({0, 1, 2, 3});
  CHECK(average_linkage(even.view(), 3) == groups{{0, 1}, {2}, {3}});
}

TEST_CASE("groups around the most salient") {
  auto similarity = line({0, 1, 2, 10, 11});
  for (index_t i = 0; i < 5; ++i)
    for (index_t j = 0; j < 5; ++j) similarity(i, j) = -similarity(i, j);
  std::vector<double> const saliency{1, 9, 1, 1, 5};
  CHECK(groups_around(saliency, similarity.view(), 2, false) == groups{{1, 0, 2}, {4, 3}});
  CHECK(groups_around(saliency, similarity.view(), 2, true) == groups{{1, 0, 2, 3}, {4}});  // the first takes all
  CHECK(groups_around(saliency, similarity.view(), 2, true, 3) == groups{{1, 0, 2}, {4, 3}});
  CHECK_THROWS_AS(groups_around(saliency, similarity.view(), 2, true, 2), error);
  CHECK_THROWS_AS(groups_around(saliency, similarity.view(), 6, true), error);
}

TEST_CASE("every method covers every expert once, with weights that add up to 1") {
  auto layer = toy::everything();
  for (std::uint64_t i = 0; i < 4; ++i) toy::window(i).feed(reference_backend{}, layer);
  for (char const* name : {"average", "hc_smoe", "ream"})
    for (index_t keep = 2; keep <= 4; ++keep) {
      auto const found = merge_groups(find_merge_method(name), layer, {0, 1, 3, 4}, keep, 2);
      CHECK(static_cast<index_t>(found.size()) == keep);
      list all;
      for (auto const& g : found) {
        CHECK(std::find(g.members.begin(), g.members.end(), g.kept) != g.members.end());
        CHECK(std::accumulate(g.weights.begin(), g.weights.end(), 0.0) == doctest::Approx(1));
        all.insert(all.end(), g.members.begin(), g.members.end());
      }
      std::sort(all.begin(), all.end());
      CHECK(all == list{0, 1, 3, 4});
    }
  CHECK_THROWS_WITH_AS(merge_groups(merge_method::ream, layer, {0, 1, 2}, 1, 2),
                       "expert_merge: keep: expected 2 .. 3, found 1", error);
  CHECK_THROWS_AS(merge_groups(merge_method::ream, layer_statistics({.experts = 5}), {0, 1, 2}, 2, 2), error);
  CHECK_THROWS_AS(find_merge_method("ties"), usage_error);
}

TEST_CASE("hc_smoe joins the experts of like mean output and weighs them by frequency") {
  layer_statistics layer({.experts = 3, .hidden = 1, .outputs = true});
  std::vector<float> const probabilities(12, 1.F / 3), weights(4, 1);
  std::vector<std::int32_t> const chosen{0, 1, 2, 2};
  layer.router.add({matrix_view<float const>(probabilities.data(), 4, 3),
                    matrix_view<std::int32_t const>(chosen.data(), 4, 1),
                    matrix_view<float const>(weights.data(), 4, 1)});
  std::vector<float> const f{0, 5, 1, 1};
  for (index_t e = 0; e < 3; ++e)
    layer.outputs->add(reference_backend{}, e, matrix_view<float const>(f.data() + e, e == 2 ? 2 : 1, 1));
  layer.commit_window();
  auto const found = merge_groups(merge_method::hc_smoe, layer, {0, 1, 2}, 2, 1);
  CHECK(found[0].kept == 1);
  CHECK(found[1].kept == 2);
  CHECK(found[1].members == list{0, 2});
  CHECK(found[1].weights[0] == doctest::Approx(1. / 3));
}

}  // namespace trim_merge_groups_test
