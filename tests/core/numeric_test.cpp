#include <slimtrim/core/numeric.hpp>
#include <doctest/doctest.h>

#include <complex>

namespace core_numeric_test {

using namespace slimtrim;

static_assert(real_scalar<float> && real_scalar<double> && real_scalar<bfloat16> && real_scalar<float16> &&
              real_scalar<float8_e4m3>);
static_assert(!real_scalar<int> && !real_scalar<float const> && !real_scalar<long double> &&
              !real_scalar<std::complex<float>>);
static_assert(std::same_as<accumulator_t<bfloat16>, float> && std::same_as<accumulator_t<float16 const>, float> &&
              std::same_as<accumulator_t<float>, float> && std::same_as<accumulator_t<double>, double>);

TEST_CASE("widen is exact and narrow_to undoes it") {
  for (unsigned raw = 0; raw < 65536; ++raw) {
    auto const half = float16::from_bits(static_cast<std::uint16_t>(raw));
    float const wide = widen(half);
    if (wide == wide) REQUIRE(narrow_to<float16>(wide).bits == half.bits);
  }
  CHECK(widen(0.1) == 0.1);
  CHECK(narrow_to<float>(0.1F) == 0.1F);
}

}  // namespace core_numeric_test
