// The dispatch on token counts, tiles made on the device, and tiles taken apart.
#include "cuda/weights.hpp"

#include <doctest/doctest.h>
#include <slimtrim/cuda/product.cuh>

namespace cuda_product_test {

using namespace slimtrim;
using cuda_tests::code_matrix;

TEST_CASE("cuda product: every path gives the plain product") {
  cuda_tests::device_memory device;
  code_matrix const w(32, 192, 64, true, 3);
  auto const tiles = cuda::pack_tiles(w.view);
  auto const view = cuda_tests::upload_tiles(device, tiles);
  for (index_t const warpgroup : {index_t{PTRDIFF_MAX}, index_t{9}})
    for (index_t tokens : {0, 3, 20, 41}) {
      auto const X = cuda_tests::random_halves(tokens, 192, 5);
      std::vector<double> expected, scale;
      cuda_tests::plain_product<bfloat16>(tiles.view, as_const(X.view()), expected, scale);
      for (auto how :
           {backend_tests::layout::rows, backend_tests::layout::padded_rows}) {  // padding spoils the alignment
        auto const Y = device.matrix<float>(tokens, 32);
        cuda::product<bfloat16, cuda::tile_kind::codes4, float>(device.backend().on(), view,
                                                                as_const(device.upload_matrix<bfloat16>(X, how)), Y,
                                                                {.few = 8, .many = 32, .warpgroup = warpgroup});
        auto const found = device.download<float>(Y);
        // Beyond `many` weights are rounded to bfloat16: 2^-9 of each product.
        double const tolerance = tokens > 32 ? 0x1p-9 : (tokens >= warpgroup ? 0x1p-8 : 0.0) + 2 * 195 * 0x1p-24;
        CAPTURE(tokens);
        for (std::size_t i = 0; i < found.size(); ++i)
          REQUIRE(std::abs(static_cast<double>(found[i]) - expected[i]) <= tolerance * scale[i]);
      }
    }
  CHECK_THROWS_AS((cuda::product<bfloat16, cuda::tile_kind::codes4, float>(device.backend().on(), view, as_const(device.matrix<bfloat16>(2, 128)),
                                                                          device.matrix<float>(2, 32))),
                  error);
}

TEST_CASE("cuda product: tiles packed on the device are those packed on the host") {
  cuda_tests::device_memory device;
  code_matrix gate(24, 320, 128, true, 1), up(24, 320, 128, true, 2);
  cuda::fused_rows<cuda::code_rows<space::host>> const both{{gate.view}, {up.view}};
  auto const plan = cuda::plan_tiles(gate.view, cuda::tile_scale::bfloat16, true);
  auto const expected = cuda::pack_tiles(both, plan, true);
  auto const on_device = [&](code_matrix const& w) {
    quantized_view<space::device> v;
    v.rows = w.view.rows;
    v.columns = w.view.columns;
    v.words = device.keep<std::uint32_t>(w.words.data(), static_cast<index_t>(w.words.size()));
    v.words_per_row = w.view.words_per_row;
    v.block_columns = w.view.block_columns;
    index_t const groups = w.view.scales.extent(1);
    v.scales = tensor_view<float const, 2, space::device>(device.keep<float>(w.scales.data(), w.view.rows * groups), w.view.rows, groups);
    v.zeros = tensor_view<std::uint8_t const, 2, space::device>(device.keep<std::uint8_t>(w.zeros.data(), w.view.rows * groups), w.view.rows, groups);
    return cuda::code_rows<space::device>{v};
  };
  auto const words = device.vector<cuda::words4>(plan.words_needed());
  auto const scales = device.vector<std::uint16_t>(plan.scales_needed());
  auto const zeros = device.vector<std::uint8_t>(plan.scales_needed());
  cuda::fused_rows<cuda::code_rows<space::device>> const source{on_device(gate), on_device(up)};
  cuda::pack_tiles_on_device(device.backend().on(), source, plan, words.data, scales.data, zeros.data);
  auto const found = device.download<cuda::words4>(words);
  bool equal = true;
  for (index_t i = 0; i < plan.words_needed(); ++i)
    for (int k = 0; k < 4; ++k) equal = equal && found[static_cast<std::size_t>(i)].word[k] == expected.words[i].word[k];
  CHECK(equal);
  auto const found_scales = device.download<std::uint16_t>(scales);
  auto const found_zeros = device.download<std::uint8_t>(zeros);
  for (index_t i = 0; i < plan.scales_needed(); ++i) {
    REQUIRE(found_scales[static_cast<std::size_t>(i)] == expected.scales[i]);
    REQUIRE(found_zeros[static_cast<std::size_t>(i)] == expected.zeros[i]);
  }
}

TEST_CASE("cuda product: expanded tiles are the elements, rounded once") {
  cuda_tests::device_memory device;
  code_matrix const w(48, 192, 128, true, 3);
  auto const tiles = cuda::pack_tiles(w.view);
  auto const out = device.matrix<bfloat16>(48, 192);
  cuda::expand_tiles<bfloat16, cuda::tile_kind::codes4>(device.backend().on(), cuda_tests::upload_tiles(device, tiles), out);
  auto const found = device.download<bfloat16>(out);
  for (index_t r = 0; r < 48; ++r)
    for (index_t c = 0; c < 192; ++c) REQUIRE(found[static_cast<std::size_t>(r * 192 + c)].bits == bfloat16(w.view(r, c)).bits);
}

}  // namespace cuda_product_test
