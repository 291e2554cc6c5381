#include <doctest/doctest.h>
#include <slimtrim/cuda/tile_weight.hpp>

#include <set>
#include <utility>
#include <vector>

namespace cuda_tile_weight_test {

using namespace slimtrim;

namespace {

cuda::tile_weight_view plan(index_t rows, index_t columns, cuda::tile_kind kind, int group_shift = 1) {
  cuda::tile_weight_view w;
  w.rows = rows;
  w.columns = columns;
  w.kind = kind;
  w.scale_kind = kind == cuda::tile_kind::codes4 ? cuda::tile_scale::bfloat16 : cuda::tile_scale::none;
  w.group_shift = group_shift;
  return w;
}

}  // namespace

TEST_CASE("tile_weight: every nibble and every element has one place, and all places are taken") {
  auto const codes = plan(48, 192, cuda::tile_kind::codes4), halves = plan(48, 192, cuda::tile_kind::bfloat16);
  CHECK(codes.words_needed() * 16 == 48 * 192 / 2);
  CHECK(halves.words_needed() * 16 == 48 * 192 * 2);
  std::set<std::pair<index_t, int>> nibbles;
  std::set<index_t> elements;
  for (index_t r = 0; r < 48; ++r)
    for (index_t c = 0; c < 192; ++c) {
      auto const at = cuda::place_of_code(codes, r, c);
      REQUIRE(at.word >= 0);
      REQUIRE(at.word < codes.words_needed() * 4);
      nibbles.emplace(at.word, at.nibble);
      index_t const half = cuda::place_of_half(halves, r, c);
      REQUIRE(half >= 0);
      REQUIRE(half < halves.words_needed() * 8);
      elements.insert(half);
    }
  CHECK(nibbles.size() == 48 * 192);
  CHECK(elements.size() == 48 * 192);
}

TEST_CASE("tile_weight: scale pairs of all strips, groups and rows are apart") {
  auto const w = plan(32, 320, cuda::tile_kind::codes4);  // 5 blocks: groups of 2, 2 and 1
  CHECK(w.groups() == 3);
  std::set<index_t> pairs;
  for (index_t strip = 0; strip < 2; ++strip)
    for (index_t group = 0; group < 3; ++group)
      for (int g = 0; g < 8; ++g) pairs.insert(w.pair_index(strip, group, g));
  CHECK(pairs.size() == 48);
  CHECK(*pairs.rbegin() == 47);
  CHECK(w.scales_needed() == 96);
}

TEST_CASE("tile_weight: gate and up rows take turns of eight") {
  std::set<index_t> rows;
  for (index_t r = 0; r < 24; ++r)
    for (bool up : {false, true}) rows.insert(cuda::fused_row(r, up));
  CHECK(rows.size() == 48);
  CHECK(cuda::fused_row(0, false) == 0);
  CHECK(cuda::fused_row(0, true) == 8);
  CHECK(cuda::fused_row(9, true) == 25);
}

TEST_CASE("tile_weight: bytes of a Mixtral expert") {
  // 14336 x 4096 codes with a 16-bit scale for 128: 0.515625 bytes a weight.
  auto const w = plan(14336, 4096, cuda::tile_kind::codes4);
  CHECK(w.bytes() == 14336 * 4096 / 2 + 14336 * 32 * 2);
}

TEST_CASE("tile_weight: shapes that do not fit are refused") {
  CHECK_THROWS_WITH(cuda::check_tile_weight(plan(24, 64, cuda::tile_kind::codes4)), "tile_weight: rows: expected a multiple of 16");
  CHECK_THROWS_WITH(cuda::check_tile_weight(plan(16, 96, cuda::tile_kind::codes4)),
                    "tile_weight: columns: expected a multiple of 64");
  auto odd = plan(16, 64, cuda::tile_kind::codes4);
  odd.scale_kind = cuda::tile_scale::none;
  CHECK_THROWS(cuda::check_tile_weight(odd));
}

}  // namespace cuda_tile_weight_test
