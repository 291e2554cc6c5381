#include <doctest/doctest.h>
#include <slimtrim/simd/target/exact.hpp>

#include <cmath>

namespace simd_target_exact_test {

using namespace slimtrim;
namespace target = slimtrim::simd::HWY_NAMESPACE;

namespace {

template <simd::element_kind Kind, int Place>
float plain(std::uint32_t word) {
  std::uint32_t all[target::lanes];
  float out[target::lanes];
  for (auto& each : all) each = word;
  target::store(target::plain_element<Kind, Place>(target::load(static_cast<std::uint32_t const*>(all))), out);
  return out[target::lanes - 1];
}

template <simd::element_kind Kind, int Place>
float scaled(std::uint32_t word) {
  std::uint32_t all[target::lanes];
  float out[target::lanes];
  for (auto& each : all) each = word;
  target::store(target::element<Kind, Place>(target::load(static_cast<std::uint32_t const*>(all))), out);
  return out[0];
}

}  // namespace

TEST_CASE("codes come out of their places, as themselves or times a power of two") {
  using simd::element_kind;
  CHECK(plain<element_kind::codes4, 0>(0xfedcba98U) == 8);
  CHECK(plain<element_kind::codes4, 3>(0xfedcba98U) == 11);
  CHECK(plain<element_kind::codes4, 7>(0xfedcba98U) == 15);
  CHECK(scaled<element_kind::codes4, 3>(0xfedcba98U) == 11 * 4096.0F);
  CHECK(scaled<element_kind::codes4, 7>(0xfedcba98U) == 15);
  CHECK(plain<element_kind::codes8, 1>(0xff80017fU) == 1);
  CHECK(scaled<element_kind::codes8, 2>(0xff80017fU) == 128 * 65536.0F);
  CHECK(scaled<element_kind::codes8, 3>(0xff80017fU) == 255);
}

TEST_CASE("every finite float16 is read exactly, subnormals and signed zeros included") {
  bool equal = true;
  for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
    if ((bits & 0x7c00U) == 0x7c00U) continue;
    float const expected = static_cast<float>(float16::from_bits(static_cast<std::uint16_t>(bits)));
    float const low = plain<simd::element_kind::float16_pairs, 0>(bits | 0x12340000U);
    float const high = plain<simd::element_kind::float16_pairs, 1>((bits << 16) | 0x4321U);
    equal = equal && bits_as<std::uint32_t>(low) == bits_as<std::uint32_t>(expected) &&
            bits_as<std::uint32_t>(high) == bits_as<std::uint32_t>(expected);
  }
  CHECK(equal);
}

}  // namespace simd_target_exact_test
