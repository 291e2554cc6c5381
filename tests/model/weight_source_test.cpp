#include <slimtrim/model/weight_source.hpp>

#include <doctest/doctest.h>

#include <memory>

namespace model_weight_source_test {

using namespace slimtrim;

namespace {

class constant_weights final : public weight_source {
 public:
  bool has(module_id) const override { return true; }
  weight matrix(module_id) const override { return own_weight(tensor<float, 2>(2, 3)); }
  std::vector<float> vector(module_id) const override { return {1, 2}; }
};

}  // namespace

TEST_CASE("a source needs three members; release is optional") {
  std::unique_ptr<weight_source const> const source = std::make_unique<constant_weights>();
  CHECK_NOTHROW(source->release(3));
  CHECK(source->matrix({module_role::query, 0, 0}).columns() == 3);
  CHECK(source->vector({module_role::final_norm, 0, 0}).size() == 2);
}

}  // namespace model_weight_source_test
