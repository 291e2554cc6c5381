#include <doctest/doctest.h>
#include <slimtrim/simd/kernel_table.hpp>

namespace simd_kernel_table_test {

using namespace slimtrim::simd;

TEST_CASE("sizes of a panel follow from its kind") {
  panel_view view;
  view.kind = element_kind::codes4;
  view.rows = 17, view.columns = 300, view.lanes = 8, view.blocks = 10, view.group_blocks = 4;
  CHECK(view.panels() == 3);
  CHECK(view.groups() == 3);
  CHECK(view.block_bytes() == 32 * 8 / 2);
  CHECK(view.head_bytes() == 8 * 4);
  // Two heads of 32 bytes lie together: heads 0 and 1, blocks 0 to 7, head 2, blocks 8 and 9.
  CHECK(view.groups_a_stretch() == 2);
  CHECK(view.head_at(1) == 32);
  CHECK(view.words_at(0) == 64);
  CHECK(view.words_at(7) == 64 + 7 * 128);
  CHECK(view.head_at(2) == 64 + 8 * 128);
  CHECK(view.words_at(9) == 2 * 64 + 9 * 128);
  CHECK(view.size_of_panel() == 2 * 64 + 10 * 128);
  view.scales = scale_kind::float16s;
  CHECK(view.head_bytes() == 16);
  CHECK(view.groups_a_stretch() == 4);
  CHECK(view.size_of_panel() == 64 + 10 * 128);
  view.scales = scale_kind::floats;
  view.has_zeros = true;
  CHECK(view.head_bytes() == 64);
  CHECK(view.head_at(2) == 2 * 64 + 8 * 128);
  view.kind = element_kind::float16_pairs;
  CHECK(view.head_bytes() == 0);
  CHECK(view.block_bytes() == 32 * 8 * 2);
  CHECK(bits_of(element_kind::float16_pairs) == 16);
  CHECK(bits_of(element_kind::floats) == 32);
}

TEST_CASE("activations name rows in order, or by index") {
  std::int32_t const rows[] = {5, 2};
  float_activations some;
  CHECK(some.row(1) == 1);
  some.tokens = rows;
  CHECK(some.row(1) == 2);
}

}  // namespace simd_kernel_table_test
