// Plans as JSON: everything comes back, and every broken field is named.
#include <slimtrim/pipeline/plan_file.hpp>

#include <slimtrim/pipeline/recipe_text.hpp>

#include <doctest/doctest.h>

#include <functional>
#include <string>

namespace pipeline_plan_file_test {

using namespace slimtrim;

namespace {

plan some_plan() {
  plan p;
  p.recipe = "layer_drop:1+gptq:3g64";
  p.fingerprint = "0123456789abcdef0123456789abcdef";
  p.layers = {{.experts = {0, 1, 3}}, {.feed_forward = false}, {.block = false, .experts = {0, 1, 2, 3}}, {.attention = false, .experts = {1, 2}}};
  p.slimming = parse_recipe("gptq:3g64+magnitude:2:4").steps;
  p.slimming[0].targets = {"experts", "*.w\"2*"};
  p.slimming[0].layers = {0, 3};
  p.slimming[0].fit = fit_rule::none;
  p.layers[0].novices = {{1, {0.1F, -3e-20F}}};
  p.layers[0].merges = {{3, {2, 3}, {0.3, 0.7}, {{1, 0}, {}}}};
  p.layers[0].neurons = {{0, {0, 5}}, {3, {2, 4}}};
  p.layers[3].merges = {{1, {0, 1}, {0.5, 0.5}, {}}};
  p.evidence.push_back({{"step", "layer_drop:1"}, {"dropped", {1}}});
  return p;
}

std::string refusal(std::function<void(ordered_json&)> const& break_it) {
  ordered_json document = plan_json(some_plan());
  break_it(document);
  try {
    static_cast<void>(read_plan(document, "plan.json"));
  } catch (input_error const& e) {
    return e.what();
  } catch (std::exception const& e) {
    return std::string("another error: ") + e.what();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("a plan comes back as it was") {
  plan const p = some_plan();
  plan const back = read_plan(ordered_json::parse(plan_json(p).dump()), "plan.json");
  CHECK(back.recipe == p.recipe);
  CHECK(back.fingerprint == p.fingerprint);
  CHECK(back.layers == p.layers);
  CHECK(back.slimming == p.slimming);
  CHECK(back.evidence == p.evidence);
  CHECK(plan_json(back) == plan_json(p));
}

TEST_CASE("a plan that somebody edits") {
  auto const edited = [](std::function<void(ordered_json&)> const& change) {
    ordered_json document = plan_json(some_plan());
    change(document);
    return read_plan(document, "plan.json");
  };
  std::string const before = some_plan().recipe;
  CHECK(edited([](ordered_json& d) { d["layers"][1]["feed_forward"] = true; }).recipe == before + " (edited)");
  CHECK(edited([](ordered_json& d) { d["slimming"] = ordered_json::array(); }).recipe == before + " (edited)");
  CHECK(edited([](ordered_json& d) { d.erase("evidence"); }).recipe == before);
  // A plan written by hand, or before there was a digest.
  CHECK(edited([](ordered_json& d) { d.erase("digest"), d["layers"][1]["feed_forward"] = true; }).recipe == before);
  // Steps on one line, as in a recipe.
  plan const short_steps = edited([](ordered_json& d) { d["slimming"] = {"rtn:8g64", "magnitude:50%"}; });
  CHECK(short_steps.slimming == parse_recipe("rtn:8g64+magnitude:50%").steps);
  CHECK(refusal([](ordered_json& d) { d["slimming"] = {"rtn:8g64", "rtn:9g64"}; }).rfind("plan.json: field 'slimming[1]': ", 0) == 0);
  CHECK(refusal([](ordered_json& d) { d["slimming"][0] = "layer_drop:2"; }).find("slimming[0]': expected steps on matrices") != std::string::npos);
  // What is mistyped would be an edit without effect.
  CHECK(refusal([](ordered_json& d) { d["layers"][0]["expert"] = {0}; }).find("field 'layers[0].expert': expected one of layer, block") != std::string::npos);
  CHECK(refusal([](ordered_json& d) { d["slimmings"] = ordered_json::array(); }).find("field 'slimmings': expected one of slimtrim_plan") != std::string::npos);
}

TEST_CASE("indices as text, both ways") {
  using list = std::vector<index_t>;
  for (auto const& [indices, text] : {std::pair<list, std::string>{{}, ""}, {{4}, "4"}, {{0, 1, 2, 3, 7, 9, 10}, "0-3 7 9-10"}, {{3, 2, 0, 1}, "3 2 0-1"}}) {
    CHECK(detail::index_text(indices) == text);
    CHECK(detail::indices_of_text(text) == indices);
  }
  for (std::string const wrong : {" ", "x", "-1", "1-", "3-2", "1,2", "1  2", "1 ", "1.5", "0-2000000", "99999999999999999999"}) {
    CAPTURE(wrong);
    CHECK_FALSE(detail::indices_of_text(wrong));
  }
}

TEST_CASE("evidence may be left out") {
  CHECK(refusal([](ordered_json& d) { d.erase("evidence"); }) == "accepted");
}

TEST_CASE("each broken field is refused by name") {
  for (std::string const key : {"slimtrim_plan", "recipe", "model", "layers", "slimming"}) {
    CAPTURE(key);
    for (ordered_json const& value : {ordered_json(nullptr), ordered_json(ordered_json::object()), ordered_json(2.5)}) {
      std::string const text = refusal([&](ordered_json& d) { d[key] = value; });
      CHECK(text.rfind("plan.json: field '" + key + "'", 0) == 0);
    }
    CHECK(refusal([&](ordered_json& d) { d.erase(key); }).rfind("plan.json: field '" + key + "'", 0) == 0);
  }
  for (std::string const key : {"layer", "block", "attention", "feed_forward", "experts"}) {
    CAPTURE(key);
    CHECK(refusal([&](ordered_json& d) { d["layers"][1][key] = "x"; }).rfind("plan.json: field 'layers[1]." + key + "'", 0) == 0);
    std::string const missing = refusal([&](ordered_json& d) { d["layers"][1].erase(key); });
    CHECK(missing.rfind("plan.json: field '", 0) == 0);
    CHECK(missing.find(key) != std::string::npos);
  }
  CHECK(refusal([](ordered_json& d) { d["slimtrim_plan"] = 2; }) == "plan.json: field 'slimtrim_plan': expected version 1");
  CHECK(refusal([](ordered_json& d) { d["layers"][2]["layer"] = 3; }).rfind("plan.json: field 'layers[2].layer': expected 2", 0) == 0);
  CHECK(refusal([](ordered_json& d) { d["layers"][0]["experts"][1] = -1; }).rfind("plan.json: field 'layers[0].experts'", 0) == 0);
  CHECK(refusal([](ordered_json& d) { d["layers"][0]["experts"][1] = 1.0; }).rfind("plan.json: field 'layers[0].experts'", 0) == 0);
  for (std::string const key : {"novices", "merges", "neurons"}) {
    CAPTURE(key);
    CHECK(refusal([&](ordered_json& d) { d["layers"][0][key] = 1; }).rfind("plan.json: field 'layers[0]." + key + "': expected a list", 0) == 0);
    CHECK(refusal([&](ordered_json& d) { d["layers"][0][key][0] = 1; }) != "accepted");
    for (std::string const field : {"expert", "constant", "kept", "members", "weights", "orders"}) {
      CAPTURE(field);
      if (!plan_json(some_plan())["layers"][0][key][0].contains(field)) continue;
      std::string const text = refusal([&](ordered_json& d) { d["layers"][0][key][0][field] = "x"; });
      CHECK(text.rfind("plan.json: field 'layers[0]." + key + "[0]." + field + "'", 0) == 0);
      if (field != "orders") CHECK(refusal([&](ordered_json& d) { d["layers"][0][key][0].erase(field); }).find(field) != std::string::npos);
    }
  }
  CHECK(refusal([](ordered_json& d) { d["layers"][0]["novices"][0]["constant"][1] = "x"; }).find("layers[0].novices[0].constant': expected numbers") != std::string::npos);
  CHECK(refusal([](ordered_json& d) { d["layers"][0]["neurons"][1]["expert"] = 0; }).find("layers[0].neurons[1].expert': expected each expert once") != std::string::npos);
  CHECK(refusal([](ordered_json& d) { d["layers"][0] = 7; }).rfind("plan.json: field '", 0) == 0);
  CHECK(refusal([](ordered_json& d) { d["layers"][0].erase("layer"); }).rfind("plan.json: field '", 0) == 0);
  CHECK(refusal([](ordered_json& d) { d["slimming"][0] = 7; }).rfind("plan.json: field 'slimming[0]'", 0) == 0);
  CHECK(refusal([](ordered_json& d) { d = ordered_json::array(); }).rfind("plan.json: field 'slimtrim_plan'", 0) == 0);
  // A step that cannot be read: the recipe reader's own error, never a crash.
  CHECK(refusal([](ordered_json& d) { d["slimming"][0] = "[[step]]\nmethod = \"shrink:3\"\n"; }) != "accepted");
  CHECK(refusal([](ordered_json& d) { d["slimming"][0] = "not toml ["; }).find("plan.json") != std::string::npos);
}

}  // namespace pipeline_plan_file_test
