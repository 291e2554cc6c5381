#include <doctest/doctest.h>
#include <slimtrim/cuda/tile_codes.hpp>

namespace cuda_tile_codes_test {

using namespace slimtrim;

namespace {

// All 16 codes against all 16 zero points at every place of a word: what the kernel subtracts is exact.
template <class T>
void check_all_codes() {
  for (std::uint32_t code = 0; code < 16; ++code)
    for (std::uint32_t zero = 0; zero < 16; ++zero)
      for (int nibble = 0; nibble < 8; ++nibble) {
        std::uint32_t const others = 0x5a3c9617U & ~(15U << (4 * nibble)), word = others | code << (4 * nibble);
        std::uint32_t const raised = cuda::raised_codes<T>(word, nibble % 4), subtracted = cuda::raised_zero<T>(zero);
        float const value = static_cast<float>(cuda::element_of_pair<T>(raised, nibble >= 4));
        float const base = static_cast<float>(cuda::element_of_pair<T>(subtracted, nibble >= 4));
        float const expected = static_cast<float>(static_cast<int>(code) - static_cast<int>(zero));
        REQUIRE(value - base == expected);
        // And the difference is a number of T, so that rounding to T changes nothing.
        REQUIRE(static_cast<float>(T(value - base)) == expected);
      }
}

}  // namespace

TEST_CASE("tile_codes: code minus zero is exact for every code, zero point and place") {
  check_all_codes<bfloat16>();
  check_all_codes<float16>();
}

}  // namespace cuda_tile_codes_test
