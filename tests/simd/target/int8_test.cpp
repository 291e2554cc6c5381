#include <slimtrim/simd/target/int8.hpp>
#include <doctest/doctest.h>

#include <vector>

namespace simd_target_int8_test {

using namespace slimtrim;
namespace target = slimtrim::simd::HWY_NAMESPACE;

// Random shapes are in kernel_suite.hpp; here one panel whose sums are whole numbers.
TEST_CASE("whole numbers are exact for every number of tokens, tokens beside or behind one another") {
  constexpr index_t blocks = 3, rows = target::lanes;
  simd::panel_view view;
  view.kind = simd::element_kind::codes8;
  view.middle = 128;
  view.rows = rows, view.columns = blocks * 32, view.lanes = target::lanes, view.blocks = blocks;
  view.group_blocks = 2;
  view.panel_bytes = view.size_of_panel();
  std::vector<std::uint32_t> panel(static_cast<std::size_t>(view.panel_bytes / 4));
  view.data = reinterpret_cast<std::byte const*>(panel.data());
  auto code_at = [](index_t r, index_t k) { return static_cast<std::uint32_t>((7 * r + 3 * k) % 256); };
  auto words_from = [&](index_t byte) { return panel.data() + byte / 4; };
  for (index_t group = 0; group < 2; ++group)
    for (index_t r = 0; r < target::lanes; ++r)
      words_from(view.head_at(group))[r] = bits_as<std::uint32_t>(static_cast<float>(r + 1));
  for (index_t block = 0; block < blocks; ++block)
    for (index_t word = 0; word < 8; ++word)
      for (index_t r = 0; r < target::lanes; ++r) {
        std::uint32_t bits = 0;
        for (index_t i = 0; i < 4; ++i) bits |= code_at(r, block * 32 + word * 4 + i) << (8 * i);
        words_from(view.words_at(block))[word * target::lanes + r] = bits;
      }
  auto activation = [](index_t t, index_t k) { return static_cast<std::int8_t>((5 * t + k) % 255 - 127); };
  std::int32_t const middle = target::signed_codes<simd::element_kind::codes8> ? 0 : 128;
  for (index_t tokens : {1, 2, 3, 4, 5, 32}) {
    for (bool const beside : {false, true}) {
      std::vector<std::int8_t> codes(static_cast<std::size_t>(tokens * blocks * 32));
      std::vector<float> scales(static_cast<std::size_t>(tokens * blocks), 1.0F);
      std::vector<std::int32_t> starts(static_cast<std::size_t>(tokens * blocks), 0);
      index_t const token_stride = beside ? 1 : blocks, block_stride = beside ? tokens : 1;
      for (index_t t = 0; t < tokens; ++t)
        for (index_t k = 0; k < blocks * 32; ++k) {
          auto const block = static_cast<std::size_t>(t * token_stride + k / 32 * block_stride);
          codes[block * 32 + static_cast<std::size_t>(k % 32)] = activation(t, k);
          starts[block] -= middle * activation(t, k);
        }
      std::vector<float> out(static_cast<std::size_t>(tokens * rows));
      target::int8_product(view, 0, 1,
                           {codes.data(), scales.data(), starts.data(), token_stride, block_stride, nullptr}, tokens,
                           {out.data(), rows, 1, rows});
      for (index_t t = 0; t < tokens; ++t)
        for (index_t r = 0; r < rows; ++r) {
          float sum = 0;
          for (index_t k = 0; k < blocks * 32; ++k)
            sum += static_cast<float>(static_cast<int>(code_at(r, k)) - 128) * static_cast<float>(activation(t, k));
          CHECK(out[static_cast<std::size_t>(t * rows + r)] == static_cast<float>(r + 1) * sum);
        }
    }
  }
}

}  // namespace simd_target_int8_test
