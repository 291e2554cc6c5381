// The kernels of whatever machine this is compiled for: ctest's static/arm cross-compiles it and runs it on an emulator.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "../kernel_suite.hpp"

#include <slimtrim/simd/target/kernels.hpp>

TEST_CASE("kernels of this machine equal double sums") {
  auto const& kernels = *slimtrim::simd::HWY_NAMESPACE::kernels();
  auto const found = simd_suite::run_cases(kernels, 5, 1300);
  MESSAGE(kernels.name, ": ", found.cases, " weights, ", found.shapes, " products, NMSE ", found.error / found.norm);
}
