#include <slimtrim/simd/target/select.hpp>
#include <doctest/doctest.h>

namespace simd_target_select_test {

using namespace slimtrim;
namespace target = slimtrim::simd::HWY_NAMESPACE;

TEST_CASE("two of four by hand: higher scores stay, equal ones by the lower column, a column without input goes first") {
  float w[64] = {1, -2, 3, -4, 5, 5, 5, 5, -1, 0, 1, 0, 9, 8, 7, 6}, norms[64];
  for (float& each : norms) each = 1;
  norms[12] = 0;
  std::uint64_t bits = 0;
  std::uint32_t const largest = target::keep_in_groups(simd::element_kind::floats, w, norms, 64, 4, 2, &bits);
  if (target::most_of_group == 0) return;
  CHECK(largest == bits_as<std::uint32_t>(9.0F));
  CHECK((bits & 0xffffU) == 0x653cU);
  CHECK((bits >> 16) == 0x333333333333U);
}

TEST_CASE("none and all of a group, and groups of eight") {
  float w[64], norms[64];
  for (int i = 0; i < 64; ++i) w[i] = static_cast<float>(i % 8), norms[i] = 0.5F;
  std::uint64_t bits = 1;
  if (target::most_of_group == 0) return;
  static_cast<void>(target::keep_in_groups(simd::element_kind::floats, w, norms, 64, 4, 0, &bits));
  CHECK(bits == 0);
  static_cast<void>(target::keep_in_groups(simd::element_kind::floats, w, norms, 64, 4, 4, &bits));
  CHECK(bits == ~std::uint64_t{0});
  if (target::most_of_group < 8) return;
  static_cast<void>(target::keep_in_groups(simd::element_kind::floats, w, norms, 64, 8, 3, &bits));
  CHECK(bits == 0xe0e0e0e0e0e0e0e0U);
}

}  // namespace simd_target_select_test
