// Expert Drop by criteria that judge sets, and after steps that changed the experts.
#include <slimtrim/pipeline/decide/experts.hpp>

#include <pipeline/support.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace pipeline_decide_experts_test {

using namespace slimtrim;
using namespace pipeline_tests;

namespace {

token_windows const& windows() {
  static token_windows const some = train_windows(3, 48);
  return some;
}
decide_inputs tokens() { return {.model = &bundled(), .data = &windows()}; }

}  // namespace

TEST_CASE("reconstruction: no other set of a layer loses less; greedy beyond few experts") {
  plan const p = decide_plan("expert_drop:6/8@reconstruction", tokens());
  CHECK(p.evidence[0]["subsets"] == 8 * 28);
  for (index_t const layer : {0, 5}) {
    REQUIRE(p.layer(layer).experts.size() == 6);
    double const least = reconstruction_loss_of(bundled(), windows(), layer, p.layer(layer).experts).loss;
    for (index_t a = 0; a < 8; ++a)
      for (index_t b = 0; b < a; b += 3) {
        std::vector<index_t> kept;
        for (index_t e = 0; e < 8; ++e)
          if (e != a && e != b) kept.push_back(e);
        CHECK(least <= reconstruction_loss_of(bundled(), windows(), layer, kept).loss);
      }
  }
  plan const pooled = decide_plan("expert_drop:6/8@global_reconstruction", tokens());
  std::size_t total = 0;
  for (layer_plan const& layer : pooled.layers) {
    total += layer.experts.size();
    CHECK(layer.experts.size() >= 2);
  }
  CHECK(total == 48);
  plan const even = decide_plan("expert_drop:6/8@global_reconstruction", tokens(), {.uniform = true});
  CHECK(even.layers == p.layers);
  // With memory for one window only, fewer tokens decide, by the same rules.
  plan const few = decide_plan("expert_drop:7/8@reconstruction", tokens(), {.reconstruction_bytes = 1});
  token_windows const first = part_of(windows(), 0, 1);
  CHECK(few.layers == decide_plan("expert_drop:7/8@reconstruction", {.model = &bundled(), .data = &first}).layers);
  CHECK(has(message_of<usage_error>([] { static_cast<void>(decide_plan("expert_drop:6/8@reconstruction", {.model = &bundled()})); }), "works on tokens"));
}

TEST_CASE("reconstruction_kl: losses in nats, so that pooled layers lose where the model minds least") {
  // Within layers it is reconstruction.
  CHECK(decide_plan("expert_drop:6/8@reconstruction_kl", tokens()).layers == decide_plan("expert_drop:6/8@reconstruction", tokens()).layers);
  plan const pooled = decide_plan("expert_drop:6/8@global_reconstruction_kl", tokens());
  ordered_json const& table = pooled.evidence[0]["layers"];
  REQUIRE(table.size() == 8);
  for (index_t const i : {0, 4}) {
    // The two lowest scores of a layer add up to the KL of losing these two experts, measured here by another route.
    std::vector<double> const scores = table[static_cast<std::size_t>(i)]["scores"].get<std::vector<double>>();
    std::vector<std::size_t> order(8);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] < scores[b]; });
    plan without = keep_everything(bundled().config);
    auto& kept = without.layer(i).experts;
    for (std::size_t k = 0; k < 2; ++k) kept.erase(std::find(kept.begin(), kept.end(), static_cast<index_t>(order[k])));
    double const kl = evaluate_model(planned_model(bundled(), without), &bundled(), windows()).kl_mean;
    // Increases are made non-decreasing, so the sum is the KL or above; 1e-6: the meter starts behind equal layers.
    CHECK(scores[order[0]] + scores[order[1]] >= kl * (1 - 1e-6));
    CHECK(scores[order[0]] + scores[order[1]] <= 2 * kl);
  }
  std::size_t total = 0;
  for (layer_plan const& layer : pooled.layers) total += layer.experts.size();
  CHECK(total == 48);
  // After another step only what this one adds counts.
  plan const after = decide_plan("layer_drop:1@greedy_kl+expert_drop:6/8@global_reconstruction_kl", tokens());
  CHECK(after.evidence.size() == 2);
}

TEST_CASE("hope: its own search decides inside a layer") {
  model_statistics const statistics = calibrate_model(bundled(), windows());
  plan const p = decide_plan("expert_drop:5/8@hope", {.model = &bundled(), .statistics = &statistics});
  for (index_t i = 0; i < 8; ++i) {
    hope_selection const gone = hope_select(hope_matrix(statistics.layer(i)), 8, 3);
    for (index_t const e : gone.removed) CHECK_FALSE(std::binary_search(p.layer(i).experts.begin(), p.layer(i).experts.end(), e));
    CHECK(p.layer(i).experts.size() == 5);
  }
}

TEST_CASE("in any order with other steps") {
  model_statistics const statistics = calibrate_model(bundled(), windows());
  decide_inputs const all{.model = &bundled(), .statistics = &statistics, .data = &windows()};
  for (std::string const recipe : {"expert_merge:6/8+expert_drop:4/8", "novice:6/8+expert_drop:4/8@aimer", "neuron_drop:128+expert_drop:4/8@aimer",
                                   "expert_drop:6/8+layer_drop:2+block_drop:1+expert_drop:4/8@reconstruction"}) {
    CAPTURE(recipe);
    plan const p = decide_plan(recipe, all);
    for (layer_plan const& layer : p.layers)
      if (layer.block && layer.feed_forward) CHECK(layer.experts.size() - layer.novices.size() == 4);
    plan const again = decide_plan(recipe, all, {.recalibrate = true});
    CHECK(again.evidence.size() == p.evidence.size());
  }
  CHECK(message_of<error>([&] { static_cast<void>(decide_plan("expert_drop:4/8+expert_drop:6/8", all)); }) != "nothing thrown");
}

}  // namespace pipeline_decide_experts_test
