#include "kernel_suite.hpp"

#include <slimtrim/simd/dispatch.hpp>

namespace simd_gemm_test {

using namespace simd_suite;

// Random shapes are in gemv_test.cpp; here whole numbers, so that every order of adding gives the same floats.
TEST_CASE("tiles of any number of tokens add up whole numbers exactly") {
  random_source random{31};
  auto const& kernels = simd::static_kernels();
  simd::weight_arena arena;
  thread_pool pool(2);
  index_t const out = 3 * kernels.lanes + 1, in = 300;
  tensor<bfloat16, 2> W(out, in);
  for (index_t i = 0; i < out * in; ++i) W.view().data[i] = bfloat16(static_cast<float>(random.between(-8, 8)));
  auto const ready = simd::interleave(as_const(W.view()), kernels.lanes, arena);
  REQUIRE(ready.has_value());
  for (index_t tokens : {1, 5, 6, 7, 12, 13, 121, 130}) {
    tensor<float, 2> X(tokens, in), Y(tokens, out);
    for (index_t i = 0; i < tokens * in; ++i) X.view().data[i] = static_cast<float>(random.between(-8, 8));
    simd::gemm_exact(kernels, &pool, {ready->view, nullptr}, X.view(), Y.view());
    bool equal = true;
    for (index_t t = 0; t < tokens; ++t)
      for (index_t o = 0; o < out; ++o) {
        float sum = 0;
        for (index_t k = 0; k < in; ++k) sum += X(t, k) * static_cast<float>(W(o, k));
        equal = equal && sum == Y(t, o);
      }
    CHECK(equal);
  }
}

}  // namespace simd_gemm_test
