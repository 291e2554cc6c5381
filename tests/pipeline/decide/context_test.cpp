// What decisions are given: tables, layers that a plan leaves alone, protected ends, the guard.
#include <slimtrim/pipeline/decide/context.hpp>

#include <pipeline/support.hpp>

#include <slimtrim/pipeline/recipe_text.hpp>

#include <doctest/doctest.h>

namespace pipeline_decide_context_test {

using namespace slimtrim;
using namespace pipeline_tests;

TEST_CASE("only the tables that a recipe looks at are collected") {
  CHECK(tables_of(parse_recipe("expert_drop:6/8+rtn:4")) == statistics_tables{false, false, false});
  CHECK(tables_of(parse_recipe("layer_drop:1+novice:6/8")).outputs);
  CHECK(tables_of(parse_recipe("expert_drop:6/8@mone")).outputs);
  CHECK(tables_of(parse_recipe("expert_merge:6/8@ream")).outputs);
  CHECK_FALSE(tables_of(parse_recipe("expert_merge:6/8")).outputs);
  CHECK(tables_of(parse_recipe("neuron_drop:64")).neurons);
  CHECK_FALSE(tables_of(parse_recipe("neuron_drop:64@random")).neurons);
}

TEST_CASE("layers that a plan leaves alone") {
  plan const all = keep_everything(bundled().config);
  CHECK(untouched_layers(all, all) == 8);
  plan p = all;
  p.layer(3).experts.pop_back();
  CHECK(untouched_layers(p, all) == 3);
  p.layer(0).attention = false;
  CHECK(untouched_layers(p, all) == 0);
}

TEST_CASE("statistics without the table that a step needs") {
  token_windows const windows = train_windows(2, 32);
  calibrate_options options;
  options.tables = {false, false, false};
  model_statistics const bare = calibrate_model(bundled(), windows, 1, options);
  decide_inputs const inputs{.model = &bundled(), .statistics = &bare};
  for (auto const& [recipe, table] : {std::pair{"novice:6/8", "expert outputs"}, std::pair{"neuron_drop:128", "neuron energies"},
                                      std::pair{"expert_merge:6/8@ream", "expert outputs"}})
    CHECK(has(message_of<usage_error>([&, r = recipe] { static_cast<void>(decide_plan(r, inputs)); }), std::string("needs the table of ") + table));
  // Data makes up for it.
  CHECK(decide_plan("novice:6/8", {.model = &bundled(), .statistics = &bare, .data = &windows}).layer(0).novices.size() == 2);
}

TEST_CASE("protected layers keep their experts, guarded experts stay") {
  token_windows const windows = train_windows(2, 64);
  model_statistics const statistics = calibrate_model(bundled(), windows);
  recipe r = parse_recipe("expert_drop:5/8");
  r.steps[0].protect_first = 2;
  r.steps[0].protect_last = 1;
  decide_inputs const inputs{.model = &bundled(), .statistics = &statistics};
  plan const p = decide_recipe(r, inputs);
  for (index_t i = 0; i < 8; ++i) CHECK(p.layer(i).experts.size() == (i < 2 || i == 7 ? 8 : 5));

  // The expert of the largest output stays, however random the scores are.
  index_t layer = 0, expert = 0;
  double largest = 0;
  for (index_t i = 0; i < 6; ++i)
    for (index_t e = 0; e < 8; ++e)
      if (statistics.layer(i).norms.largest(e) > largest) largest = statistics.layer(i).norms.largest(e), layer = i, expert = e;
  double over_all = largest;
  for (index_t i = 6; i < 8; ++i)
    for (index_t e = 0; e < 8; ++e) over_all = std::max(over_all, statistics.layer(i).norms.largest(e));
  r = parse_recipe("expert_drop:2/8@random");
  r.steps[0].protect_super_experts = true;
  plan const guarded = decide_recipe(r, inputs, {.seed = 3});
  CHECK(guarded.evidence[0]["layers"][0].contains("protected"));
  if (largest == over_all)
    CHECK(std::binary_search(guarded.layer(layer).experts.begin(), guarded.layer(layer).experts.end(), expert));
  for (std::size_t i = 0; i < 8; ++i)
    for (ordered_json const& e : guarded.evidence[0]["layers"][i]["protected"]) {
      auto const& kept = guarded.layers[i].experts;
      CHECK(std::find(kept.begin(), kept.end(), e.get<index_t>()) != kept.end());
    }
}

}  // namespace pipeline_decide_context_test
