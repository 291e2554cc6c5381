// Compiles the kernels for AVX-512 and VNNI too, which this machine may not be able to run.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#include <slimtrim/simd/runtime_kernels.hpp>

#include "kernel_suite.hpp"

#include <cstring>
#include <string>

using namespace simd_suite;

TEST_CASE("the kernels chosen for this machine equal double sums") {
  auto const& kernels = simd::runtime_kernels();
  MESSAGE("chosen: " << std::string(kernels.name));
  CHECK(std::strlen(kernels.name) > 0);
  CHECK(&kernels == &simd::runtime_kernels());
  run_cases(kernels, 8, 100);
}
