// A panel from vectors of a single element: the plain C++ version of every kernel.
#define HWY_COMPILE_ONLY_SCALAR

#include "../kernel_suite.hpp"

#include <slimtrim/simd/target/kernels.hpp>

using namespace simd_suite;

TEST_CASE("scalar kernels with 8 rows a panel equal double sums") {
  auto const& kernels = *simd::HWY_NAMESPACE::kernels();
  CHECK(kernels.lanes == 8);
  run_cases(kernels, 6, 300);
}
