// From recipes to plans: what goes, in which order it is decided, and what is refused.
#include <slimtrim/pipeline/decide.hpp>
#include <slimtrim/pipeline/recipe_toml.hpp>

#include <slimtrim/importance/reap_residual.hpp>

#include <pipeline/support.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <string>
#include <vector>

namespace pipeline_decide_test {

using namespace slimtrim;
using namespace pipeline_tests;

namespace {

token_windows const& windows() {
  static token_windows const some = train_windows(4, 48);
  return some;
}
model_statistics const& statistics() {
  static model_statistics const found = calibrate_model(bundled(), windows(), 2);
  return found;
}
decide_inputs measured() { return {.model = &bundled(), .statistics = &statistics()}; }

// Layers by falling value, ties by lower index.
std::vector<index_t> most(std::vector<double> const& values, std::size_t count) {
  std::vector<index_t> order(values.size());
  std::iota(order.begin(), order.end(), index_t{0});
  std::stable_sort(order.begin(), order.end(), [&](index_t a, index_t b) { return values[static_cast<std::size_t>(a)] > values[static_cast<std::size_t>(b)]; });
  order.resize(count);
  std::sort(order.begin(), order.end());
  return order;
}
std::vector<double> cosines(double (similarity_statistics::*of)() const) {
  std::vector<double> values;
  for (index_t i = 0; i < 8; ++i) values.push_back((statistics().layer(i).similarity.*of)());
  return values;
}
std::vector<index_t> without(plan const& p, bool layer_plan::*part) {
  std::vector<index_t> gone;
  for (index_t i = 0; i < static_cast<index_t>(p.layers.size()); ++i)
    if (!(p.layer(i).*part)) gone.push_back(i);
  return gone;
}

}  // namespace

TEST_CASE("layers with the highest cosines go") {
  CHECK(without(decide_plan("layer_drop:2", measured()), &layer_plan::feed_forward) == most(cosines(&similarity_statistics::moe), 2));
  CHECK(without(decide_plan("attention_drop:3", measured()), &layer_plan::attention) == most(cosines(&similarity_statistics::attention), 3));
  CHECK(without(decide_plan("block_drop:2", measured()), &layer_plan::block) == most(cosines(&similarity_statistics::block), 2));
  plan const p = decide_plan("layer_drop:2+gptq:3g64", measured());
  CHECK(p.fingerprint == fingerprint_of(*bundled().files));
  CHECK(p.recipe == "layer_drop:2+gptq:3g64");
  REQUIRE(p.slimming.size() == 1);
  CHECK(p.slimming[0].method == method::gptq);
  REQUIRE(p.evidence.size() == 1);
  CHECK(p.evidence[0]["dropped"].size() == 2);
  CHECK(p.evidence[0]["scores"].size() == 8);
  CHECK(p.evidence[0]["scores"][3]["score"] == statistics().layer(3).similarity.moe());
}

TEST_CASE("a later step sees what an earlier one left") {
  plan const p = decide_plan("block_drop:2+layer_drop:2", measured());
  auto const blocks = without(p, &layer_plan::block), parts = without(p, &layer_plan::feed_forward);
  CHECK(blocks.size() == 2);
  CHECK(parts.size() == 2);
  for (index_t const i : parts) CHECK(std::find(blocks.begin(), blocks.end(), i) == blocks.end());
  plan const q = decide_plan("layer_drop:2+layer_drop:1", measured());
  CHECK(without(q, &layer_plan::feed_forward) == most(cosines(&similarity_statistics::moe), 3));
  // Pooled experts of the layers that are left, and of these only: no dropped layer shifts or takes part.
  plan const pooled = decide_plan("layer_drop:2+expert_drop:6/8@global_reap_residual", measured());
  double least_kept = 1e9, most_gone = 0;
  std::size_t total = 0;
  for (index_t i = 0; i < 8; ++i) {
    layer_plan const& layer = pooled.layer(i);
    if (!layer.feed_forward) continue;
    total += layer.experts.size();
    std::vector<double> const scores = reap_residual_importance{}(statistics().layer(i));
    for (index_t e = 0; e < 8; ++e) {
      bool const kept = std::binary_search(layer.experts.begin(), layer.experts.end(), e);
      // A layer at its floor may keep what goes elsewhere.
      if (kept && layer.experts.size() > 2) least_kept = std::min(least_kept, scores[static_cast<std::size_t>(e)]);
      if (!kept) most_gone = std::max(most_gone, scores[static_cast<std::size_t>(e)]);
    }
  }
  CHECK(without(pooled, &layer_plan::feed_forward).size() == 2);
  CHECK(total == 36);
  CHECK(least_kept >= most_gone);
  // Measured again before the second step: still a plan of that size, decided on other numbers.
  plan const r = decide_plan("expert_drop:6/8+layer_drop:1", {.model = &bundled(), .data = &windows()}, {.recalibrate = true});
  CHECK(without(r, &layer_plan::feed_forward).size() == 1);
  plan const s = decide_plan("expert_drop:6/8+layer_drop:1", {.model = &bundled(), .data = &windows()});
  CHECK(r.evidence[0] == s.evidence[0]);
  CHECK(r.evidence[1]["scores"] != s.evidence[1]["scores"]);
}

TEST_CASE("experts: the lowest scores go, counts and the floor are kept") {
  plan const p = decide_plan("expert_drop:5/8@frequency", measured());
  for (index_t i = 0; i < 8; ++i) {
    std::vector<double> counts;
    for (index_t e = 0; e < 8; ++e) counts.push_back(statistics().layer(i).router.count(e));
    CHECK(p.layer(i).experts.size() == 5);
    double fewest_kept = 1e9, most_gone = 0;
    for (index_t e = 0; e < 8; ++e) {
      bool const kept = std::binary_search(p.layer(i).experts.begin(), p.layer(i).experts.end(), e);
      if (kept) fewest_kept = std::min(fewest_kept, counts[static_cast<std::size_t>(e)]);
      if (!kept) most_gone = std::max(most_gone, counts[static_cast<std::size_t>(e)]);
    }
    CHECK(fewest_kept >= most_gone);
  }
  plan const pooled = decide_plan("expert_drop:3/8@global_reap_residual", measured());
  std::size_t total = 0;
  for (index_t i = 0; i < 8; ++i) {
    total += pooled.layer(i).experts.size();
    CHECK(pooled.layer(i).experts.size() >= 2);
  }
  CHECK(total == 24);
  plan const even = decide_plan("expert_drop:3/8@global_reap_residual", measured(), {.uniform = true});
  for (index_t i = 0; i < 8; ++i) CHECK(even.layer(i).experts.size() == 3);
  // From weights alone.
  plan const weights = decide_plan("expert_drop:6/8@aimer", {.model = &bundled()});
  for (index_t i = 0; i < 8; ++i) CHECK(weights.layer(i).experts.size() == 6);
  CHECK(has(message_of<usage_error>([] { static_cast<void>(decide_plan("expert_drop:3/9", measured())); }), "expected the model's 8 experts after the slash (layer 0), found 9"));
  CHECK(message_of<error>([] { static_cast<void>(decide_plan("expert_drop:1/8", measured())); }) != "nothing thrown");
}

TEST_CASE("a router with groups keeps as many experts of each, whoever scores") {
  opened_model grouped = bundled();
  grouped.config.routing.groups = 4;
  grouped.config.routing.groups_kept = 2;
  grouped.config.routing.group_by = group_score::top_two_sum;
  token_windows const few = part_of(windows(), 0, 2);
  model_statistics const seen = calibrate_model(grouped, few);
  decide_inputs const inputs{.model = &grouped, .statistics = &seen, .data = &few};
  for (std::string const recipe : {"expert_drop:4/8", "expert_drop:4/8@global", "expert_drop:4/8@hope", "expert_drop:4/8@reconstruction",
                                   "expert_drop:4/8@global_reconstruction_kl", "expert_drop:4/8@global_random"}) {
    CAPTURE(recipe);
    plan const p = decide_plan(recipe, inputs);
    std::size_t total = 0;
    for (layer_plan const& layer : p.layers) {
      std::vector<index_t> of_group(4, 0);
      for (index_t const e : layer.experts) ++of_group[static_cast<std::size_t>(e / 2)];
      CHECK(std::set<index_t>(of_group.begin(), of_group.end()).size() == 1);
      total += layer.experts.size();
    }
    CHECK(total == 32);
    CHECK(evaluate_model(planned_model(grouped, p), &grouped, few).kl_mean > 0);
  }
  CHECK(has(message_of<error>([&] { static_cast<void>(decide_plan("expert_drop:6/8", inputs)); }), "keep: expected a multiple of groups (4), found 6"));
}

TEST_CASE("what a step needs and was not given") {
  decide_inputs const bare{.model = &bundled()};
  CHECK(has(message_of<usage_error>([&] { static_cast<void>(decide_plan("layer_drop:2", bare)); }), "layer_drop:2: needs statistics"));
  CHECK(has(message_of<usage_error>([&] { static_cast<void>(decide_plan("expert_drop:6/8", bare)); }), "expert_drop:6/8: needs statistics"));
  CHECK(has(message_of<usage_error>([&] { static_cast<void>(decide_plan("layer_drop:2@greedy", measured())); }), "layer_drop:2@greedy: works on tokens"));
  CHECK(has(message_of<usage_error>([&] { static_cast<void>(decide_plan("block_drop:2@consecutive", measured())); }), "needs the table of all runs of blocks"));
  CHECK(has(message_of<usage_error>([&] { static_cast<void>(decide_plan("layer_drop:2@consecutive", measured())); }), "consecutive is a way to drop blocks"));
  model_statistics foreign = statistics();
  foreign.model = std::string(32, 'f');
  CHECK(has(message_of<input_error>([&] { static_cast<void>(decide_plan("layer_drop:1", {.model = &bundled(), .statistics = &foreign})); }), "expected statistics of this model"));
  CHECK(message_of<error>([] { static_cast<void>(decide_plan("layer_drop:9", measured())); }) != "nothing thrown");
  CHECK_THROWS_AS(static_cast<void>(decide_plan("rtn:4", {})), error);
}

TEST_CASE("methods that work on tokens") {
  decide_inputs const data{.model = &bundled(), .data = &windows()};
  for (std::string const recipe : {"layer_drop:2@greedy", "block_drop:2@consecutive"}) {
    plan const p = decide_plan(recipe, data);
    CHECK(without(p, &layer_plan::feed_forward).size() + without(p, &layer_plan::block).size() == 2);
  }
  token_windows const few = part_of(windows(), 0, 1);
  plan const p = decide_plan("layer_drop:1@greedy_kl", {.model = &bundled(), .data = &few});
  REQUIRE(p.evidence[0]["dropped"].size() == 1);
  // No other single drop does less damage on these tokens.
  auto const damage = [&](index_t i) {
    plan one = keep_everything(bundled().config);
    one.layer(i).feed_forward = false;
    return evaluate_model(planned_model(bundled(), one), &bundled(), few).kl_mean;
  };
  double const chosen = damage(p.evidence[0]["dropped"][0].get<index_t>());
  for (index_t i = 0; i < 8; ++i) CHECK(chosen <= damage(i));
}

TEST_CASE("greedy_kl is never worse than one shot on its tokens, and exhaustive_kl never worse than either") {
  token_windows const few = part_of(windows(), 0, 2);
  decide_inputs const data{.model = &bundled(), .data = &few};
  auto const damage = [&](plan const& p) { return evaluate_model(planned_model(bundled(), p), &bundled(), few).kl_mean; };
  for (std::string const step : {"layer_drop:", "block_drop:", "attention_drop:"})
    for (std::string const count : {"1", "2", "3"}) {
      CAPTURE(step + count);
      plan const greedy = decide_plan(step + count + "@greedy_kl", data);
      double const by_steps = damage(greedy);
      // What the plan says it costs is what it costs; the meter starts behind the layers that are equal.
      CHECK(greedy.evidence[0]["kl"].get<double>() == doctest::Approx(by_steps).epsilon(1e-6));
      CHECK(by_steps <= damage(decide_plan(step + count, data)));
      if (count == "3") continue;
      plan const all = decide_plan(step + count + "@exhaustive_kl", data);
      CHECK(damage(all) <= by_steps);
      CHECK(all.evidence[0]["kl"].get<double>() == doctest::Approx(damage(all)).epsilon(1e-6));
    }
  CHECK(has(message_of<usage_error>([&] { static_cast<void>(decide_plan("layer_drop:1@exhaustive_kl", measured())); }), "works on tokens"));
}

TEST_CASE("what cannot be carried out is refused before anything is measured") {
  // No statistics and no text: the first step alone would be refused for want of them.
  for (auto const& [toml, said] : {std::pair{"[[step]]\nmethod = \"layer_drop:2\"\nlayers = [0, 8]\n", "layer_drop:2: layers: expected 0 to 7, found 8"},
                                   std::pair{"[[step]]\nmethod = \"layer_drop:2\"\n[[step]]\nmethod = \"rtn:4g128\"\nlayers = [9]\n", "layers: expected 0 to 7, found 9"},
                                   std::pair{"[[step]]\nmethod = \"layer_drop:2\"\n[[step]]\nmethod = \"rtn:4g128\"\ntargets = [\"*none*\"]\n", "expected some matrix"}}) {
    CAPTURE(toml);
    recipe const r = load_recipe(toml);
    CHECK(has(message_of<error>([&] { static_cast<void>(decide_recipe(r, {.model = &bundled()})); }), said));
  }
}

TEST_CASE("layers named by hand need neither statistics nor text, whatever the criterion") {
  decide_inputs const bare{.model = &bundled()};
  for (std::string const method : {"layer_drop:2", "layer_drop:2@greedy_kl", "block_drop:2@angular"}) {
    CAPTURE(method);
    plan const p = decide_recipe(load_recipe("[[step]]\nmethod = \"" + method + "\"\nlayers = [2, 4]\n"), bare);
    CHECK(p.evidence[0]["dropped"] == ordered_json{2, 4});
    CHECK_FALSE(p.evidence[0].contains("kl"));
  }
  // What an earlier step took cannot be taken again.
  std::string const both = "[[step]]\nmethod = \"layer_drop:1\"\nlayers = [2]\n[[step]]\nmethod = \"layer_drop:2\"\nlayers = [2, 4]\n";
  CHECK(has(message_of<usage_error>([&] { static_cast<void>(decide_recipe(load_recipe(both), bare)); }),
            "layer_drop:2: layers: expected layers that still have what goes, 2 of them, found 1"));
}

TEST_CASE("random is what the seed says; protected and listed layers") {
  decide_inputs const bare{.model = &bundled()};
  plan const a = decide_plan("layer_drop:3@random", bare, {.seed = 5}), b = decide_plan("layer_drop:3@random", bare, {.seed = 5});
  CHECK(a.layers == b.layers);
  bool differs = false;
  for (std::uint64_t seed = 6; seed < 12; ++seed) differs = differs || decide_plan("layer_drop:3@random", bare, {.seed = seed}).layers != a.layers;
  CHECK(differs);
  CHECK(decide_plan("expert_drop:4/8@random", bare, {.seed = 1}).layers == decide_plan("expert_drop:4/8@random", bare, {.seed = 1}).layers);
}

}  // namespace pipeline_decide_test
