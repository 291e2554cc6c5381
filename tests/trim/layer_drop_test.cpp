#include <slimtrim/backend/reference.hpp>
#include <slimtrim/trim/layer_drop.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <vector>

namespace trim_layer_drop_test {

using namespace slimtrim;

TEST_CASE("each criterion reads its own similarity") {
  std::vector<float> const x{1, 0}, residual{3, 4}, input{1, 0}, output{-3, 0}, y{0, 4};
  auto const one = [](std::vector<float> const& v) { return matrix_view<float const>(v.data(), 1, 2); };
  similarity_statistics s;
  s.add(reference_backend{}, {one(x), one(residual), one(input), one(output), one(y)});
  s.commit_window();
  CHECK(layer_similarity(s, layer_part::moe, layer_criterion::cosine) == doctest::Approx(.8));
  CHECK(layer_similarity(s, layer_part::attention, layer_criterion::cosine) == doctest::Approx(.6));
  CHECK(layer_similarity(s, layer_part::block, layer_criterion::cosine) == 0);
  CHECK(layer_similarity(s, layer_part::moe, layer_criterion::cosine_without_norm) == doctest::Approx(-1));
  CHECK(layer_similarity(s, layer_part::block, layer_criterion::angular) == doctest::Approx(.5));
  CHECK_THROWS_AS(layer_similarity(s, layer_part::block, layer_criterion::cosine_without_norm), error);
  CHECK_THROWS_AS(layer_similarity(s, layer_part::moe, layer_criterion::greedy_kl), error);
}

TEST_CASE("layer_drop takes MoE layers only because dense ones are no candidates; names; random") {
  CHECK(layer_drop({{1, .9}, {2, .99}, {3, .5}}, {.count = 1}).dropped == std::vector<index_t>{2});
  CHECK(find_layer_criterion("greedy_kl") == layer_criterion::greedy_kl);
  CHECK(find_layer_criterion("exhaustive_kl") == layer_criterion::exhaustive_kl);
  CHECK(find_layer_criterion("cosine_without_norm") == layer_criterion::cosine_without_norm);
  CHECK_THROWS_AS(find_layer_criterion("reap"), usage_error);
  auto const a = random_candidates({1, 2, 3}, 7), b = random_candidates({3}, 7);
  CHECK(a[2].similarity == b[0].similarity);
  CHECK(a[0].similarity != random_candidates({1}, 8)[0].similarity);
}

}  // namespace trim_layer_drop_test
