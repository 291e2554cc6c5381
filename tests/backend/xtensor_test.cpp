#include "backend/backend_suite.hpp"

#include <slimtrim/backend/xtensor.hpp>

#include <xtensor/xtensor.hpp>

#include <slimtrim/tensor/adapt.hpp>

namespace backend_xtensor_test {

using namespace slimtrim;
using xtensor_harness = backend_tests::host_harness<xtensor_backend>;

SLIMTRIM_BACKEND_SUITE(xtensor_harness)

TEST_CASE("xtensor: operands may be xtensor's own, and results land in them") {
  xt::xtensor<float, 2> const A = {{1, 2}, {3, 4}}, B = {{0, 1}, {1, 0}};
  xt::xtensor<float, 2> C = xt::zeros<float>({2, 2});
  xtensor_backend{}.gemm(1.0F, as_const_matrix(A), as_const_matrix(B), 0.0F, as_matrix(C));
  CHECK(C(0, 0) == 2);
  CHECK(C(0, 1) == 1);
  CHECK(C(1, 0) == 4);
  CHECK(C(1, 1) == 3);
}

}  // namespace backend_xtensor_test
