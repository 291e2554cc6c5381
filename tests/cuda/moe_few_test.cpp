// The experts of a layer for few tokens each, behind a routing made by hand: hidden activations and results.
#include "cuda/experts.hpp"

#include <slimtrim/cuda/moe_few.cuh>
#include <doctest/doctest.h>

#include <vector>

namespace cuda_moe_few_test {

using namespace slimtrim;
using cuda_tests::experts_on_both_sides;
using cuda_tests::routed;

namespace {

constexpr auto codes = cuda::tile_kind::codes4;

template <class T, cuda::tile_kind Kind, int TokenTiles>
cuda_tests::experts_check<T> checked(cuda_tests::device_memory& device) {
  return {[&device](cuda::moe_layer_view<T> const& layer, device_matrix<T const> X, device_matrix<float> Y,
                    cuda::moe_workspace<T> const& work, bool accumulate) {
    cuda::moe_few<T, Kind, TokenTiles, float>(device.backend().on(), layer, X, Y, work, accumulate);
    for (unsigned ticket : device.download<unsigned>(work.tickets.view())) REQUIRE(ticket == 0);
  }};
}

// No token, one, and more than fill a tile; an expert that nobody chooses and slots that nobody fills.
template <class T, cuda::tile_kind Kind>
void check_tokens(cuda_tests::expert_shape const& shape) {
  cuda_tests::device_memory device;
  experts_on_both_sides<T> const all(device, shape, Kind);
  for (index_t tokens : {0, 1, 17}) {
    routed const chosen(tokens, shape.experts, 3, 4);
    checked<T, Kind, 1>(device)(all, chosen);
    if (tokens == 17) checked<T, Kind, 2>(device)(all, chosen, true);
  }
}

}  // namespace

TEST_CASE("moe_few: 4-bit codes, an odd number of column blocks and an even one") {
  check_tokens<bfloat16, codes>({});
  check_tokens<bfloat16, codes>({.hidden = 128, .width = 192});
}

TEST_CASE("moe_few: groups of 64, zero points in some experts") {
  check_tokens<bfloat16, codes>({.group = 64, .with_zeros = true});
  check_tokens<bfloat16, codes>({.hidden = 128, .width = 128, .group = 64});
}

TEST_CASE("moe_few: 16-bit weights, and float16 activations") {
  check_tokens<bfloat16, cuda::tile_kind::bfloat16>({});
  check_tokens<float16, cuda::tile_kind::float16>({.hidden = 64, .width = 128});
  check_tokens<float16, codes>({.hidden = 64, .with_zeros = true});
}

TEST_CASE("moe_few: rows so long that eight warps share them") {
  cuda_tests::device_memory device;
  experts_on_both_sides<bfloat16> const all(device, {.hidden = 8192, .width = 64, .experts = 1}, codes);
  checked<bfloat16, codes, 1>(device)(all, cuda_tests::all_to(1, 1, 0));
}

TEST_CASE("moe_few: all tokens on one expert pass its weights several times") {
  cuda_tests::device_memory device;
  experts_on_both_sides<bfloat16> const all(device, {}, codes);
  for (index_t tokens : {8, 9, 33}) {
    checked<bfloat16, codes, 1>(device)(all, cuda_tests::all_to(tokens, 4, 2));
    checked<bfloat16, codes, 2>(device)(all, cuda_tests::all_to(tokens, 4, 2));
  }
}

TEST_CASE("moe_few: where no token has an expert zeros are written, or what is there stays") {
  cuda_tests::device_memory device;
  experts_on_both_sides<bfloat16> const all(device, {.hidden = 64}, codes);
  for (bool accumulate : {false, true})
    checked<bfloat16, codes, 1>(device)(all, cuda_tests::all_to(3, 4, -1), accumulate);
}

TEST_CASE("moe_few: a result in columns, and rows of activations that are apart") {
  cuda_tests::device_memory device;
  experts_on_both_sides<bfloat16> const all(device, {}, codes);
  routed const chosen(5, 4, 2, 8);
  checked<bfloat16, codes, 1>(device)(all, chosen, false, backend_tests::layout::columns);
  auto const apart = [&](cuda::moe_layer_view<bfloat16> const& layer, device_matrix<bfloat16 const> X,
                         device_matrix<float> Y, cuda::moe_workspace<bfloat16> const& work, bool accumulate) {
    tensor<bfloat16, 2> wide(5, 200);
    wide.fill(bfloat16(std::nanf("")));
    auto const packed = device.download<bfloat16>(device_matrix<bfloat16>(const_cast<bfloat16*>(X.data), 5, 192));
    for (index_t i = 0; i < 5 * 192; ++i) wide(i / 192, i % 192) = packed[static_cast<std::size_t>(i)];
    cuda::moe_few<bfloat16, codes, 1, float>(device.backend().on(), layer,
                                             columns(as_const(device.upload_matrix<bfloat16>(wide)), 0, 192), Y, work,
                                             accumulate);
  };
  cuda_tests::experts_check<bfloat16>{apart}(all, chosen);
}

TEST_CASE("moe_few: a result in 16 bits is the float result, rounded once") {
  cuda_tests::device_memory device;
  experts_on_both_sides<bfloat16> const all(device, {}, codes);
  routed const chosen(9, 4, 2, 8);
  auto const work = all.workspace(9, 2);
  cuda_tests::listed_pairs(chosen.indices, 4).upload(device, work, chosen.weights);
  auto const X = as_const(device.upload_matrix<bfloat16>(cuda_tests::random_halves(9, 192, 4)));
  auto const Y = device.matrix<float>(9, 192);
  auto const rounded = device.matrix<bfloat16>(9, 192);
  auto& on = device.backend().on();
  cuda::moe_few<bfloat16, codes, 1, float>(on, all.with_slots(2), X, Y, work, false);
  cuda::moe_few<bfloat16, codes, 1, bfloat16>(on, all.with_slots(2), X, rounded, work, false);
  auto const exact = device.download<float>(Y);
  auto const found = device.download<bfloat16>(rounded);
  for (std::size_t i = 0; i < exact.size(); ++i) REQUIRE(found[i].bits == bfloat16(exact[i]).bits);
}

}  // namespace cuda_moe_few_test
