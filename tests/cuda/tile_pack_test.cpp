#include "cuda/weights.hpp"

#include <doctest/doctest.h>
#include <slimtrim/cuda/tile_pack.hpp>

namespace cuda_tile_pack_test {

using namespace slimtrim;
using cuda_tests::code_matrix;

TEST_CASE("tile_pack: tiles hold the weight's own elements, at every group size and with and without zero points") {
  for (index_t group : {0, 64, 128, 256})
    for (bool with_zeros : {false, true}) {
      code_matrix const w(32, 320, group, with_zeros, 5);
      auto const tiles = cuda::pack_tiles(w.view);
      bool equal = true;
      for (index_t r = 0; r < 32; ++r)
        for (index_t c = 0; c < 320; ++c) equal = equal && cuda::element_at(tiles.view, r, c) == w.view(r, c);
      CAPTURE(group);
      CHECK(equal);
      CHECK(tiles.view.scale_kind == cuda::tile_scale::bfloat16);
    }
}

TEST_CASE("tile_pack: dense elements keep their bits") {
  auto const w = cuda_tests::random_halves(16, 128, 9);
  auto const tiles = cuda::pack_tiles<bfloat16>(w.view());
  for (index_t r = 0; r < 16; ++r)
    for (index_t c = 0; c < 128; ++c) REQUIRE(cuda::element_at(tiles.view, r, c) == static_cast<float>(w(r, c)));
}

TEST_CASE("tile_pack: gate and up side by side") {
  code_matrix const gate(24, 128, 128, true, 1), up(24, 128, 128, true, 2);
  cuda::fused_rows<cuda::code_rows<space::host>> const both{{gate.view}, {up.view}};
  auto const tiles = cuda::pack_tiles(both, cuda::plan_tiles(gate.view, cuda::tile_scale::bfloat16, true), true);
  CHECK(tiles.view.rows == 48);
  for (index_t r = 0; r < 24; ++r)
    for (index_t c = 0; c < 128; ++c) {
      REQUIRE(cuda::element_at(tiles.view, cuda::fused_row(r, false), c) == gate.view(r, c));
      REQUIRE(cuda::element_at(tiles.view, cuda::fused_row(r, true), c) == up.view(r, c));
    }
}

TEST_CASE("tile_pack: scales take the 16-bit type that holds them, and others are refused") {
  code_matrix w(16, 64, 64, false, 3);
  w.scales[0] = static_cast<float>(float16(0.0123F));
  for (float& s : w.scales) s = static_cast<float>(float16(s));
  CHECK(cuda::scale_type_of(w.view) == cuda::tile_scale::float16);
  w.scales[1] = 0.012345678F;
  CHECK_THROWS(static_cast<void>(cuda::pack_tiles(w.view)));
}

TEST_CASE("tile_pack: what does not fit is named") {
  code_matrix const narrow(16, 96, 32, false, 3), short_groups(16, 128, 32, false, 3), odd_groups(16, 384, 192, false, 3);
  CHECK_THROWS_WITH(static_cast<void>(cuda::plan_tiles(narrow.view, cuda::tile_scale::bfloat16)),
                    "plan_tiles: group size: expected 64 times a power of two, or whole rows");
  CHECK_THROWS(static_cast<void>(cuda::plan_tiles(short_groups.view, cuda::tile_scale::bfloat16)));
  CHECK_THROWS(static_cast<void>(cuda::plan_tiles(odd_groups.view, cuda::tile_scale::bfloat16)));
  code_matrix w(16, 128, 64, false, 3);
  std::vector<std::int32_t> const order(128, 0);
  w.view.column_group = order.data();
  CHECK_THROWS(static_cast<void>(cuda::plan_tiles(w.view, cuda::tile_scale::bfloat16)));
}

}  // namespace cuda_tile_pack_test
