#include <slimtrim/model/family.hpp>

#include <slimtrim/model/families/deepseek.hpp>
#include <slimtrim/model/families/mixtral.hpp>

#include <doctest/doctest.h>

namespace model_family_test {

using namespace slimtrim;

TEST_CASE("patterns are constants of the descriptor") {
  static_assert(mixtral_family.pattern(module_role::head) == "lm_head.weight");
  static_assert(mixtral_family.pattern(module_role::shared_up).empty());
  static_assert(deepseek_family.pattern(module_role::dense_up) == "model.layers.{layer}.mlp.up_proj.weight");
  CHECK(mixtral_family.pattern(module_role::router) == "model.layers.{layer}.block_sparse_moe.gate.weight");
}

TEST_CASE("every role has its own name") {
  for (std::size_t i = 0; i < role_count; ++i) {
    CHECK_FALSE(role_name(static_cast<module_role>(i)).empty());
    for (std::size_t j = 0; j < i; ++j)
      CHECK(role_name(static_cast<module_role>(i)) != role_name(static_cast<module_role>(j)));
  }
}

}  // namespace model_family_test
