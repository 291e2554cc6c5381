// The few-token product against plain sums over the elements of its tiles.
#include "cuda/weights.hpp"

#include <doctest/doctest.h>
#include <slimtrim/cuda/few_tokens.cuh>

namespace cuda_few_tokens_test {

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
  cuda::few_tokens_product<T, Kind, float>(device.backend().on(), w, as_const(device.upload_matrix<T>(X)), Y);
  auto const found = device.download<float>(Y);
  std::vector<double> expected, scale;
  cuda_tests::plain_product<T>(tiles.view, as_const(X.view()), expected, scale);
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    worst = std::max(worst, std::isnan(found[i]) ? 1.0 : std::abs(static_cast<double>(found[i]) - expected[i]) / scale[i]);
  CAPTURE(tokens);
  // Float sums of k products, k roundings at most: (k + 3) 2^-24, doubled for the tensor cores' truncation.
  CHECK(worst <= 2 * static_cast<double>(w.columns + 3) * 0x1p-24);
}

}  // namespace

TEST_CASE("few_tokens: 4-bit codes, symmetric and with zero points, any number of tokens") {
  cuda_tests::device_memory device;
  for (bool with_zeros : {false, true}) {
    code_matrix const w(32, 1280, 128, with_zeros, 7);
    auto const tiles = cuda::pack_tiles(w.view);
    for (index_t tokens : {0, 1, 3, 8, 9, 17, 32}) check_product<bfloat16, cuda::tile_kind::codes4>(device, tiles, tokens);
    check_product<float16, cuda::tile_kind::codes4>(device, tiles, 5);
  }
}

TEST_CASE("few_tokens: columns that do not fill the warps' turns, and one scale a row") {
  cuda_tests::device_memory device;
  for (index_t columns : {64, 128, 192, 1088, 1152, 8192, 8256, 8320})
    for (bool with_zeros : {false, true}) {
      code_matrix const w(16, columns, 0, with_zeros, 7);
      CAPTURE(columns);
      check_product<bfloat16, cuda::tile_kind::codes4>(device, cuda::pack_tiles(w.view), 2);
    }
}

TEST_CASE("few_tokens: dense bfloat16 weights") {
  cuda_tests::device_memory device;
  auto const w = cuda_tests::random_halves(32, 640, 11);
  for (index_t tokens : {1, 12}) check_product<bfloat16, cuda::tile_kind::bfloat16>(device, cuda::pack_tiles<bfloat16>(w.view()), tokens);
}

TEST_CASE("few_tokens: misaligned activations and too many tokens are refused") {
  cuda_tests::device_memory device;
  code_matrix const w(16, 64, 64, false, 1);
  auto const tiles = cuda_tests::upload_tiles(device, cuda::pack_tiles(w.view));
  auto const X = as_const(device.matrix<bfloat16>(33, 64));
  auto const Y = device.matrix<float>(33, 16);
  auto const run = [&](device_matrix<bfloat16 const> x) {
    cuda::few_tokens_product<bfloat16, cuda::tile_kind::codes4, float>(device.backend().on(), tiles, x, Y);
  };
  CHECK_THROWS_AS(run(X), error);
  device_matrix<bfloat16 const> shifted = rows(X, 0, 2);
  shifted.data += 1;
  CHECK_THROWS_AS(run(shifted), error);
}

}  // namespace cuda_few_tokens_test
