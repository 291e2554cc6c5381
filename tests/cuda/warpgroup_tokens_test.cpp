// The warpgroup product against plain sums over the elements of its tiles.
#include "cuda/weights.hpp"

#include <slimtrim/cuda/warpgroup_tokens.cuh>
#include <doctest/doctest.h>

#include <set>

namespace cuda_warpgroup_tokens_test {

using namespace slimtrim;
using cuda_tests::code_matrix;

namespace {

template <class T, cuda::tile_kind Kind>
void check_product(cuda_tests::device_memory& device, cuda::host_tiles const& tiles, index_t tokens,
                   backend_tests::layout how = backend_tests::layout::rows) {
  auto const w = cuda_tests::upload_tiles(device, tiles);
  tensor<T, 2> X(tokens, w.columns);
  for (index_t i = 0; i < X.view().size(); ++i)
    X.view().data[i] = T(static_cast<float>(normal_at(8, 8, static_cast<std::uint64_t>(i))));
  auto const Y = device.matrix<float>(tokens, w.rows);
  cuda::warpgroup_tokens_product<T, Kind, float>(device.backend().on(), w, as_const(device.upload_matrix<T>(X, how)),
                                                 Y);
  auto const found = device.download<float>(Y);
  std::vector<double> expected, scale;
  cuda_tests::plain_product<T>(tiles.view, as_const(X.view()), expected, scale);
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    worst =
        std::max(worst, std::isnan(found[i]) ? 1.0 : std::abs(static_cast<double>(found[i]) - expected[i]) / scale[i]);
  CAPTURE(tokens);
  // Float sums as everywhere, and one rounding of each weight to T: 2^-8 of it for bfloat16, 2^-11 for float16.
  double const rounding = cuda::has_codes(Kind) ? (std::is_same_v<T, bfloat16> ? 0x1p-8 : 0x1p-11) : 0.0;
  CHECK(worst <= rounding + 2 * static_cast<double>(w.columns + 3) * 0x1p-24);
}

}  // namespace

TEST_CASE("warpgroup_tokens: the order of columns is a permutation, and that of the fragments") {
  std::set<int> met;
  for (int at = 0; at < 32; ++at) {
    met.insert(cuda::detail::pair_in_steps(at));
    for (int i = 0; i < 2; ++i)
      CHECK(2 * cuda::detail::pair_in_steps(at) + i == cuda::block_column(at / 8, 2 * (at % 8) + i));
  }
  CHECK(met.size() == 32);
}

TEST_CASE("warpgroup_tokens: 4-bit codes, tall and short tiles, columns cut into parts, any number of tokens") {
  cuda_tests::device_memory device;
  code_matrix const w(304, 384, 128, true, 7);  // rows that fill neither 128 nor 256
  auto const tiles = cuda::pack_tiles(w.view);
  for (index_t tokens : {0, 1, 65, 128, 130}) check_product<bfloat16, cuda::tile_kind::codes4>(device, tiles, tokens);
  check_product<float16, cuda::tile_kind::codes4>(device, tiles, 5);
  // Rows apart by an odd number of elements, and columns apart from each other.
  for (auto how : {backend_tests::layout::padded_rows, backend_tests::layout::columns})
    check_product<bfloat16, cuda::tile_kind::codes4>(device, tiles, 5, how);
  code_matrix const narrow(16, 1088, 64, false, 8);  // one strip, 17 blocks, two parts
  check_product<bfloat16, cuda::tile_kind::codes4>(device, cuda::pack_tiles(narrow.view), 70);
  code_matrix const tiny(16, 64, 64, false, 8);  // fewer blocks than stages
  check_product<bfloat16, cuda::tile_kind::codes4>(device, cuda::pack_tiles(tiny.view), 3);
}

TEST_CASE("warpgroup_tokens: dense bfloat16 weights") {
  cuda_tests::device_memory device;
  auto const w = cuda_tests::random_halves(144, 320, 11);
  check_product<bfloat16, cuda::tile_kind::bfloat16>(device, cuda::pack_tiles<bfloat16>(w.view()), 140);
}

}  // namespace cuda_warpgroup_tokens_test
