#include "kernel_suite.hpp"

#include <slimtrim/simd/dispatch.hpp>

#include <string>

namespace simd_gemv_test {

using namespace simd_suite;

TEST_CASE("products of random shapes and strides equal double sums, bit-equal on 1, 2 and 7 threads") {
  auto const exact = run_cases(simd::static_kernels(), 17, 4000);
  MESSAGE(std::string(simd::static_kernels().name), ": ", exact.shapes, " products, NMSE ", exact.error / exact.norm);
  CHECK(exact.shapes >= 10000);
}

}  // namespace simd_gemv_test
