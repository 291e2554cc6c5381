#include <slimtrim/simd/target/byte_dot.hpp>
#include <doctest/doctest.h>

namespace simd_target_byte_dot_test {

using namespace slimtrim;
namespace target = slimtrim::simd::HWY_NAMESPACE;

namespace {

// start + the dot of a block whose words are all `word` with activations that are all `activation`.
template <simd::element_kind Kind>
float block_of(std::uint32_t word, std::int8_t activation, std::int32_t start = 0) {
  constexpr int stored = static_cast<int>(simd::bits_of(Kind));
  std::uint32_t block[static_cast<std::size_t>(stored * target::lanes)];
  for (auto& each : block) each = word;
  std::int8_t a[32];
  for (auto& each : a) each = activation;
  auto const* const bytes = reinterpret_cast<std::byte const*>(block);
  target::integers const from = target::broadcast(start);
  target::integers sum = target::begin_dot<Kind>(from);
  for (int w = 0; w < stored; ++w) {
    sum = target::add_dot<Kind>(sum, target::code_bytes<Kind, 0>(bytes, w), a);
    if (Kind == simd::element_kind::codes4) sum = target::add_dot<Kind>(sum, target::code_bytes<Kind, 1>(bytes, w), a);
  }
  float out[target::lanes];
  target::store(target::finish_dot<Kind>(sum, from), out);
  return out[target::lanes - 1];
}

}  // namespace

TEST_CASE("no sum of a block saturates at the ends of its range") {
  for (int a : {-127, -1, 0, 127}) {
    auto const activation = static_cast<std::int8_t>(a);
    CHECK(block_of<simd::element_kind::codes4>(0xffffffffU, activation) == 32.0F * 15 * static_cast<float>(a));
    // Where codes are taken minus 128 the ends are -128 and 127.
    int const middle = target::signed_codes<simd::element_kind::codes8> ? 128 : 0;
    CHECK(block_of<simd::element_kind::codes8>(0xffffffffU, activation) ==
          32.0F * static_cast<float>((255 - middle) * a));
    CHECK(block_of<simd::element_kind::codes8>(0U, activation) == 32.0F * static_cast<float>(-middle * a));
  }
}

TEST_CASE("a dot product goes on from its start") {
  CHECK(block_of<simd::element_kind::codes4>(0x11111111U, 3, -100000) == 32.0F * 3 - 100000);
  int const middle = target::signed_codes<simd::element_kind::codes8> ? 128 : 0;
  CHECK(block_of<simd::element_kind::codes8>(0x02020202U, -5, 77) ==
        32.0F * static_cast<float>((2 - middle) * -5) + 77);
}

}  // namespace simd_target_byte_dot_test
