#include <doctest/doctest.h>
#include <slimtrim/simd/dispatch.hpp>

#include <string>

namespace simd_dispatch_test {

using namespace slimtrim;

TEST_CASE("the compiler's own kernels are complete and say what they are") {
  auto const& kernels = simd::static_kernels();
  CHECK(std::string(kernels.name).size() >= 3);
  CHECK((kernels.lanes == 8 || kernels.lanes == 16));
  CHECK(kernels.pair_period > 0);
  CHECK(64 % kernels.pair_period == 0);
  CHECK((kernels.exact_few != nullptr));
  CHECK((kernels.int8 != nullptr));
  CHECK((kernels.expand != nullptr));
  CHECK((kernels.multiply_tile != nullptr));
  CHECK((kernels.dense_few != nullptr));
  CHECK((kernels.cosine_sums != nullptr));
  CHECK((kernels.round_row != nullptr));
  CHECK((kernels.attend != nullptr));
  CHECK((kernels.group_magnitudes != nullptr));
  CHECK((kernels.encode4 != nullptr));
  CHECK(kernels.streamed_tokens >= 8);
  CHECK((kernels.byte_offset == 0 || kernels.byte_offset == 128));
}

}  // namespace simd_dispatch_test
