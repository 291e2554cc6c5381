// Products with 2:4 sparse 4-bit weights, few and many tokens, and the expanded weight, against plain sums over the
// elements of the tiles.
#include "cuda/weights.hpp"

#include <slimtrim/cuda/product.cuh>
#include <slimtrim/cuda/select.cuh>
#include <doctest/doctest.h>

#include <vector>

namespace cuda_sparse_product_test {

using namespace slimtrim;
using cuda_tests::code_matrix;

namespace {

struct sparse_matrix : code_matrix {
  std::vector<std::uint64_t> mask;
  sparse_matrix(index_t rows, index_t columns, index_t group, bool with_zeros, std::uint64_t seed)
      : code_matrix(rows, columns, group, with_zeros, seed) {
    std::uint64_t const pairs[6] = {3, 5, 9, 6, 10, 12};
    mask.assign(static_cast<std::size_t>(rows * ceil_div(columns, 64)), 0);
    for (std::size_t i = 0; i < mask.size(); ++i)
      for (std::uint64_t g = 0; g < 16; ++g) mask[i] |= pairs[random_bits_at(seed, i, g) % 6] << (4 * g);
  }
  cuda::sparse_rows<space::host> source() const {
    return {view, tensor_view<std::uint64_t const, 2>(mask.data(), view.rows, ceil_div(view.columns, 64))};
  }
};

constexpr auto sparse = cuda::tile_kind::sparse4;

template <class T>
void check_products(cuda_tests::device_memory& device, cuda::host_tiles const& tiles, index_t tokens,
                    cuda::product_limits limits) {
  auto const w = cuda_tests::upload_tiles(device, tiles);
  tensor<T, 2> X(tokens, w.columns);
  for (index_t i = 0; i < X.view().size(); ++i)
    X.view().data[i] = T(static_cast<float>(normal_at(8, 8, static_cast<std::uint64_t>(i))));
  auto const Y = device.matrix<float>(tokens, w.rows);
  cuda::product<T, sparse, float>(device.backend().on(), w, as_const(device.upload_matrix<T>(X)), Y, limits);
  auto const found = device.download<float>(Y);
  std::vector<double> expected, scale;
  cuda_tests::plain_product<T>(tiles.view, as_const(X.view()), expected, scale);
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i)
    worst =
        std::max(worst, std::isnan(found[i]) ? 1.0 : std::abs(static_cast<double>(found[i]) - expected[i]) / scale[i]);
  CAPTURE(tokens);
  // As for dense codes; an expanded weight is rounded to T once more.
  bool const expanded = tokens > limits.many;
  CHECK(worst <= 2 * static_cast<double>(w.columns + 3) * 0x1p-24 + (expanded ? 0x1p-8 : 0.0));
}

}  // namespace

TEST_CASE("sparse_product: few and many tokens, symmetric and with zero points") {
  cuda_tests::device_memory device;
  for (bool with_zeros : {false, true}) {
    sparse_matrix const w(48, 640, 128, with_zeros, 7);
    auto const tiles = cuda::pack_tiles(w.source());
    for (index_t tokens : {1, 9, 17}) check_products<bfloat16>(device, tiles, tokens, {.few = 32});
    for (index_t tokens : {1, 33, 70}) check_products<bfloat16>(device, tiles, tokens, {.few = 0});
    check_products<float16>(device, tiles, 5, {});
    check_products<float16>(device, tiles, 5, {.few = 0});
  }
}

TEST_CASE("sparse_product: the whole weight expanded, for very many tokens") {
  cuda_tests::device_memory device;
  sparse_matrix const w(32, 128, 64, true, 9);
  check_products<bfloat16>(device, cuda::pack_tiles(w.source()), 5, {.few = 0, .many = 0});
}

TEST_CASE("sparse_product: masks made and tiles packed on the device are those of the host") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  sparse_matrix w(16, 128, 64, true, 11);
  auto const dense = cuda_tests::random_halves(16, 128, 5);
  auto const mask = device.matrix<std::uint64_t>(16, 2);
  cuda::select<bfloat16>(on, as_const(device.upload_matrix<bfloat16>(dense)), {}, 2, 4, mask);
  w.mask = device.download<std::uint64_t>(mask);
  auto const host = cuda::pack_tiles(w.source());
  cuda::sparse_rows<space::device> from;
  from.w.rows = 16;
  from.w.columns = 128;
  from.w.block_columns = 64;
  from.w.words = device.keep<std::uint32_t>(w.words.data(), static_cast<index_t>(w.words.size()));
  from.w.words_per_row = w.view.words_per_row;
  from.w.scales =
      device_matrix<float const>(device.keep<float>(w.scales.data(), static_cast<index_t>(w.scales.size())), 16, 2);
  from.w.zeros = device_matrix<std::uint8_t const>(
      device.keep<std::uint8_t>(w.zeros.data(), static_cast<index_t>(w.zeros.size())), 16, 2);
  from.mask = as_const(mask);
  auto const plan = cuda::plan_tiles(from, cuda::tile_scale::bfloat16);
  auto* const words = device.keep<cuda::words4>(nullptr, plan.words_needed());
  auto* const scales = device.keep<std::uint16_t>(nullptr, plan.scales_needed());
  auto* const zeros = device.keep<std::uint8_t>(nullptr, plan.scales_needed());
  cuda::pack_tiles_on_device(on, from, plan, words, scales, zeros);
  auto const found =
      device.download(device_vector<std::uint32_t>(reinterpret_cast<std::uint32_t*>(words), 4 * plan.words_needed()));
  auto const* const expected = reinterpret_cast<std::uint32_t const*>(host.words.data());
  for (std::size_t i = 0; i < found.size(); ++i) REQUIRE(found[i] == expected[i]);
  auto const found_zeros = device.download(device_vector<std::uint8_t>(zeros, plan.scales_needed()));
  for (std::size_t i = 0; i < found_zeros.size(); ++i) CHECK(found_zeros[i] == host.zeros.data()[i]);
}

}  // namespace cuda_sparse_product_test
