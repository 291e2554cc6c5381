#include <slimtrim/model/model_config.hpp>

#include <doctest/doctest.h>

namespace model_model_config_test {

using namespace slimtrim;

TEST_CASE("layers answer by index, rules take the layer's top_k") {
  model_config m;
  m.routing.scale = 2.5F;
  m.routing.top_k = 4;
  m.layers.resize(2);
  m.layers[0].top_k = 4;
  m.layers[1].top_k = 1;
  m.layers[1].original_experts = {7, 3};
  CHECK(m.layer_count() == 2);
  CHECK(m.layer_rule(1).top_k == 1);
  CHECK(m.layer_rule(0).top_k == 4);
  CHECK(m.layer_rule(1).scale == 2.5F);
  CHECK(m.layer(0).original_expert(1) == 1);
  CHECK(m.layer(1).original_expert(1) == 3);
}

}  // namespace model_model_config_test
