#include <slimtrim/importance/registry.hpp>
#include <importance/hand_layer.hpp>

#define DOCTEST_CONFIG_VOID_CAST_EXPRESSIONS
#include <doctest/doctest.h>

#include <set>
#include <string>

namespace importance_registry_test {

using namespace slimtrim;

TEST_CASE("every name of the recipe syntax is there, once, and scores what its header says") {
  auto const layer = hand::layer();
  std::set<std::string_view> names;
  for (auto const& entry : expert_criteria()) {
    CHECK(names.insert(entry.name).second);
    CHECK((entry.score != nullptr) == (entry.needs == need::statistics));
    if (entry.score != nullptr) CHECK(entry.score(layer).size() == 3);
  }
  for (char const* name : {"reap", "router_probability", "topk_weight", "frequency", "weighted_frequency", "ean", "man",
                           "msan", "easy_ep", "hope", "mone", "aimer", "reap_residual", "random", "reconstruction",
                           "reconstruction_kl"})
    CHECK(names.count(name) == 1);
  CHECK(hand::scores(find_criterion("reap_raw").entry->score(layer), 3, 2.7, 0));
}

TEST_CASE("the prefix pools layers; unknown names and missing needs are refused by name") {
  CHECK_FALSE(find_criterion("reap").global);
  auto const pooled = find_criterion("global_reap_residual");
  CHECK(pooled.global);
  CHECK(pooled.entry->name == "reap_residual");
  CHECK(pooled.entry->comparable);
  CHECK_THROWS_AS(find_criterion("global_"), usage_error);
  CHECK_THROWS_AS(find_criterion("magic"), usage_error);
  CHECK_NOTHROW(check_need(*find_criterion("aimer").entry, need::weights));
  CHECK_NOTHROW(check_need(*find_criterion("reap").entry, need::tokens));
  CHECK_THROWS_WITH_AS(check_need(*find_criterion("reap").entry, need::weights),
                       "criterion reap: expected statistics, found only weights", usage_error);
}

}  // namespace importance_registry_test
