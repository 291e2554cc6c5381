// Which modules a step works on: classes, globs, layers.
#include <slimtrim/pipeline/targets.hpp>

#include <slimtrim/model/known_families.hpp>
#include <slimtrim/pipeline/recipe_text.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace pipeline_targets_test {

using namespace slimtrim;

namespace {

model_family const& family(std::string const& type) {
  for (model_family const* const each : known_families)
    if (each->model_type == type) return *each;
  throw error("no such family");
}

step one(std::string const& text, std::vector<std::string> targets = {}, std::vector<index_t> layers = {}) {
  step s = parse_recipe(text).steps.front();
  s.targets = std::move(targets);
  s.layers = std::move(layers);
  return s;
}

// The glob by recursion, as its definition reads.
bool matches_slowly(std::string_view pattern, std::string_view name) {
  if (pattern.empty()) return name.empty();
  if (pattern.front() == '*') {
    for (std::size_t skip = 0; skip <= name.size(); ++skip)
      if (matches_slowly(pattern.substr(1), name.substr(skip))) return true;
    return false;
  }
  return !name.empty() && (pattern.front() == '?' || pattern.front() == name.front()) &&
         matches_slowly(pattern.substr(1), name.substr(1));
}

}  // namespace

TEST_CASE("globs") {
  CHECK(matches_glob("*", ""));
  CHECK(matches_glob("", ""));
  CHECK_FALSE(matches_glob("", "a"));
  CHECK_FALSE(matches_glob("?", ""));
  CHECK(matches_glob("model.layers.?.*w2.weight", "model.layers.3.block_sparse_moe.experts.0.w2.weight"));
  CHECK_FALSE(matches_glob("model.layers.?.*w2.weight", "model.layers.13.block_sparse_moe.experts.0.w2.weight"));
  CHECK(matches_glob("a*b*c", "aXbXbc"));
  // Every pattern and name of up to five letters of a small alphabet, against the definition.
  std::vector<std::string> patterns{""}, names{""};
  for (std::size_t at = 0; at < patterns.size(); ++at)
    if (patterns[at].size() < 4)
      for (char const c : {'a', 'b', '*', '?'}) patterns.push_back(patterns[at] + c);
  for (std::size_t at = 0; at < names.size(); ++at)
    if (names[at].size() < 5)
      for (char const c : {'a', 'b'}) names.push_back(names[at] + c);
  index_t wrong = 0;
  for (std::string const& pattern : patterns)
    for (std::string const& name : names) wrong += matches_glob(pattern, name) != matches_slowly(pattern, name) ? 1 : 0;
  CHECK(wrong == 0);
}

TEST_CASE("without targets: the linears of decoder layers, without the router") {
  step const s = one("rtn:4g32");
  model_family const& deepseek = family("deepseek");
  for (module_role const role : {module_role::query, module_role::key, module_role::value, module_role::output, module_role::gate,
                                 module_role::up, module_role::down, module_role::shared_gate, module_role::shared_up,
                                 module_role::shared_down, module_role::dense_gate, module_role::dense_up, module_role::dense_down})
    CHECK(is_target(s, deepseek, {role, 1, 0}));
  for (module_role const role : {module_role::embedding, module_role::head, module_role::final_norm, module_role::attention_norm,
                                 module_role::feed_forward_norm, module_role::router, module_role::router_bias, module_role::novice})
    CHECK_FALSE(is_target(s, deepseek, {role, 1, 0}));
}

TEST_CASE("classes and globs") {
  model_family const& mixtral = family("mixtral");
  step const experts = one("rtn:4g32", {"experts"});
  CHECK(is_target(experts, mixtral, {module_role::down, 0, 7}));
  CHECK_FALSE(is_target(experts, mixtral, {module_role::query, 0}));
  CHECK(is_target(one("rtn:4g32", {"lm_head"}), mixtral, {module_role::head}));
  CHECK(is_target(one("rtn:4g32", {"embedding"}), mixtral, {module_role::embedding}));
  CHECK(is_target(one("rtn:4g32", {"router"}), mixtral, {module_role::router, 3}));
  CHECK_FALSE(is_target(one("rtn:4g32", {"*"}), mixtral, {module_role::attention_norm, 0}));
  CHECK(is_target(one("rtn:4g32", {"*"}), mixtral, {module_role::head}));
  step const w2 = one("rtn:4g32", {"attention", "model.layers.1?.*.w2.weight"});
  CHECK(is_target(w2, mixtral, {module_role::down, 12, 0}));
  CHECK_FALSE(is_target(w2, mixtral, {module_role::down, 1, 0}));
  CHECK_FALSE(is_target(w2, mixtral, {module_role::gate, 12, 0}));
  CHECK(is_target(w2, mixtral, {module_role::value, 0}));
}

TEST_CASE("layers and recover") {
  model_family const& mixtral = family("mixtral");
  step const some = one("rtn:4g32", {}, {1, 3});
  CHECK(is_target(some, mixtral, {module_role::down, 3, 0}));
  CHECK_FALSE(is_target(some, mixtral, {module_role::down, 2, 0}));
  step const ends = one("rtn:4g32", {"lm_head", "router"}, {1});
  CHECK_FALSE(is_target(ends, mixtral, {module_role::head}));
  CHECK(is_target(ends, mixtral, {module_role::router, 1}));
  CHECK_FALSE(is_target(ends, mixtral, {module_role::router, 0}));
  step const recover = one("recover");
  CHECK(is_target(recover, mixtral, {module_role::output, 0}));
  CHECK(is_target(recover, mixtral, {module_role::down, 0, 1}));
  CHECK_FALSE(is_target(recover, mixtral, {module_role::query, 0}));
  CHECK_FALSE(is_target(recover, mixtral, {module_role::gate, 0, 1}));
}

}  // namespace pipeline_targets_test
