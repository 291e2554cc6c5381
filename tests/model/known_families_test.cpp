#include <slimtrim/model/known_families.hpp>

#include <doctest/doctest.h>

#include <set>
#include <string>

namespace model_known_families_test {

using namespace slimtrim;

TEST_CASE("families are found by model_type") {
  CHECK(&find_family("mixtral", "config.json") == &mixtral_family);
  CHECK(&find_family("deepseek", "config.json") == &deepseek_family);
  CHECK_THROWS_WITH_AS(static_cast<void>(find_family("llama", "m/config.json")),
                       "m/config.json: field 'model_type': expected one of mixtral, deepseek, found 'llama'", input_error);
}

TEST_CASE("every descriptor is complete") {
  std::set<std::string_view> types;
  for (model_family const* const each : known_families) {
    CAPTURE(each->model_type);
    CHECK(types.insert(each->model_type).second);
    CHECK_FALSE(each->architecture.empty());
    CHECK_FALSE(each->keys.experts.empty());
    CHECK_FALSE(each->keys.top_k.empty());
    CHECK_FALSE(each->keys.expert_intermediate.empty());
    for (module_role const needed :
         {module_role::embedding, module_role::final_norm, module_role::head, module_role::attention_norm,
          module_role::query, module_role::key, module_role::value, module_role::output, module_role::feed_forward_norm,
          module_role::router, module_role::gate, module_role::up, module_role::down})
      CHECK_FALSE(each->pattern(needed).empty());
    CHECK(each->pattern(module_role::shared_up).empty() == each->keys.shared_experts.empty());
    CHECK(each->pattern(module_role::dense_up).empty() == each->keys.dense_intermediate.empty());
    CHECK((each->pattern(module_role::router_bias).empty() || each->routing.selection_bias));
  }
}

}  // namespace model_known_families_test
