// The many-token product against plain sums over the elements of its tiles.
#include "cuda/weights.hpp"

#include <doctest/doctest.h>
#include <slimtrim/cuda/many_tokens.cuh>

namespace cuda_many_tokens_test {

using namespace slimtrim;
using cuda_tests::code_matrix;

namespace {

template <class T, cuda::tile_kind Kind>
void check_product(cuda_tests::device_memory& device, cuda::host_tiles const& tiles, index_t tokens) {
  auto const w = cuda_tests::upload_tiles(device, tiles);
  tensor<T, 2> X(tokens, w.columns);
  for (index_t i = 0; i < X.view().size(); ++i)
    X.view().data[i] = T(static_cast<float>(normal_at(8, 8, static_cast<std::uint64_t>(i))));
  auto const Y = device.matrix<float>(tokens, w.rows);
  cuda::many_tokens_product<T, Kind, float>(device.backend().on(), w, as_const(device.upload_matrix<T>(X)), Y);
  auto const found = device.download<float>(Y);
  std::vector<double> expected, scale;
  cuda_tests::plain_product<T>(tiles.view, as_const(X.view()), expected, scale);
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    worst = std::max(worst, std::isnan(found[i]) ? 1.0 : std::abs(static_cast<double>(found[i]) - expected[i]) / scale[i]);
  CAPTURE(tokens);
  CHECK(worst <= 2 * static_cast<double>(w.columns + 3) * 0x1p-24);
}

}  // namespace

TEST_CASE("many_tokens: 4-bit codes, one tile of tokens and several, rows that fill no block") {
  cuda_tests::device_memory device;
  code_matrix const w(144, 448, 128, true, 7);
  auto const tiles = cuda::pack_tiles(w.view);
  for (index_t tokens : {0, 1, 31, 32, 33, 64, 70}) check_product<bfloat16, cuda::tile_kind::codes4>(device, tiles, tokens);
  check_product<float16, cuda::tile_kind::codes4>(device, tiles, 5);
}

TEST_CASE("many_tokens: columns in one part and in several") {
  cuda_tests::device_memory device;
  for (index_t columns : {64, 192, 1024, 2112}) {
    code_matrix const w(16, columns, 64, false, 7);
    CAPTURE(columns);
    check_product<bfloat16, cuda::tile_kind::codes4>(device, cuda::pack_tiles(w.view), 9);
  }
}

TEST_CASE("many_tokens: dense bfloat16 weights") {
  cuda_tests::device_memory device;
  auto const w = cuda_tests::random_halves(48, 320, 11);
  for (index_t tokens : {3, 40}) check_product<bfloat16, cuda::tile_kind::bfloat16>(device, cuda::pack_tiles<bfloat16>(w.view()), tokens);
}

TEST_CASE("many_tokens: parts fill the device without becoming shallow") {
  CHECK(cuda::parts_of_columns(1000, 64, 132) == 1);
  CHECK(cuda::parts_of_columns(112, 64, 132) == 4);
  CHECK(cuda::parts_of_columns(1, 64, 132) == 8);
  CHECK(cuda::parts_of_columns(1, 7, 132) == 1);
}

}  // namespace cuda_many_tokens_test
