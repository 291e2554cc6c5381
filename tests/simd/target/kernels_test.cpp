// The panel height of 512-bit vectors, built from vectors of 128 bits: what an AVX-512 machine would run, at a width
// that every machine has.
#if defined(__x86_64__) || defined(__i386__)
#define HWY_BASELINE_TARGETS HWY_SSSE3
#endif
#define SLIMTRIM_SIMD_PANEL_ROWS 16

#include "../kernel_suite.hpp"

#include <slimtrim/simd/target/kernels.hpp>

using namespace simd_suite;

TEST_CASE("128-bit kernels with 16 rows a panel equal double sums") {
  auto const& kernels = *simd::HWY_NAMESPACE::kernels();
  CHECK(kernels.lanes == 16);
  run_cases(kernels, 5, 300);
}
