// The experts of a layer for many tokens each, behind a routing made by hand: hidden activations and results.
#include "cuda/experts.hpp"

#include <slimtrim/cuda/moe_many.cuh>
#include <doctest/doctest.h>

namespace cuda_moe_many_test {

using namespace slimtrim;
using cuda_tests::experts_on_both_sides;
using cuda_tests::routed;

namespace {

constexpr auto codes = cuda::tile_kind::codes4;

template <class T, cuda::tile_kind Kind, int TokenTiles>
cuda_tests::experts_check<T> checked(cuda_tests::device_memory& device) {
  return {[&device](cuda::moe_layer_view<T> const& layer, device_matrix<T const> X, device_matrix<float> Y,
                    cuda::moe_workspace<T> const& work, bool accumulate) {
    cuda::moe_many<T, Kind, TokenTiles, float>(device.backend().on(), layer, X, Y, work, accumulate);
  }};
}

// No token, one, and several experts' worth; an expert that nobody chooses and slots that nobody fills.
template <class T, cuda::tile_kind Kind>
void check_tokens(cuda_tests::expert_shape const& shape) {
  cuda_tests::device_memory device;
  experts_on_both_sides<T> const all(device, shape, Kind);
  for (index_t tokens : {0, 1, 17}) {
    routed const chosen(tokens, shape.experts, 3, 4);
    checked<T, Kind, 4>(device)(all, chosen, tokens == 17);
  }
}

}  // namespace

TEST_CASE("moe_many: 4-bit codes, an odd number of column blocks and an even one") {
  check_tokens<bfloat16, codes>({});
  check_tokens<bfloat16, codes>({.hidden = 128, .width = 192});  // 384 rows of gate and up: three blocks of 128
}

TEST_CASE("moe_many: groups of 64, zero points in some experts") {
  check_tokens<bfloat16, codes>({.group = 64, .with_zeros = true});
  check_tokens<bfloat16, codes>({.hidden = 128, .width = 128, .group = 64});
}

TEST_CASE("moe_many: 16-bit weights, and float16 activations") {
  check_tokens<bfloat16, cuda::tile_kind::bfloat16>({});
  check_tokens<float16, cuda::tile_kind::float16>({.hidden = 64, .width = 128});
  check_tokens<float16, codes>({.hidden = 64, .with_zeros = true});
}

TEST_CASE("moe_many: an expert whose pairs fill one tile, and one that begins a second and a third") {
  cuda_tests::device_memory device;
  experts_on_both_sides<bfloat16> const all(device, {.hidden = 64, .experts = 1}, codes);
  for (index_t tokens : {32, 33, 65}) checked<bfloat16, codes, 4>(device)(all, cuda_tests::all_to(tokens, 1, 0));
  checked<bfloat16, codes, 8>(device)(all, cuda_tests::all_to(65, 1, 0));
  experts_on_both_sides<bfloat16> const several(device, {.with_zeros = true}, codes);
  checked<bfloat16, codes, 8>(device)(several, routed(17, 4, 3, 4), true);
}

TEST_CASE("moe_many: where no token has an expert zeros are written, or what is there stays") {
  cuda_tests::device_memory device;
  experts_on_both_sides<bfloat16> const all(device, {.hidden = 64}, codes);
  for (bool accumulate : {false, true})
    checked<bfloat16, codes, 4>(device)(all, cuda_tests::all_to(3, 4, -1), accumulate);
}

TEST_CASE("moe_many: a result in columns") {
  cuda_tests::device_memory device;
  experts_on_both_sides<bfloat16> const all(device, {}, codes);
  checked<bfloat16, codes, 4>(device)(all, routed(5, 4, 2, 8), true, backend_tests::layout::columns);
}

TEST_CASE("moe_many: misaligned activations, and more rows than a grid can hold, are refused") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  experts_on_both_sides<bfloat16> const all(device, {.hidden = 64}, codes);
  auto const work = all.workspace(3, 1);
  auto const Y = device.matrix<float>(3, 64);
  auto const run = [&](cuda::moe_layer_view<bfloat16> const& layer, device_matrix<bfloat16 const> X) {
    cuda::moe_many<bfloat16, codes, 4, float>(on, layer, X, rows(Y, 0, X.extent(0)), work, false);
  };
  auto const wide = as_const(device.matrix<bfloat16>(3, 72));
  CHECK_THROWS_WITH_AS(run(all.with_slots(1), columns(wide, 1, 64)),
                       "cuda::moe_layer: X: expected rows aligned to 16 bytes", error);
  auto const odd = as_const(device.matrix<bfloat16>(3, 65));
  CHECK_THROWS_AS(run(all.with_slots(1), columns(odd, 0, 64)), error);
  auto const none = rows(wide, 0, 0);
  for (bool is_width : {false, true}) {
    auto layer = all.with_slots(1);
    (is_width ? layer.width : layer.hidden) = (is_width ? 64 : 128) * index_t{65535};
    run(layer, none);
    (is_width ? layer.width : layer.hidden) += 64;
    CHECK_THROWS_WITH_AS(run(layer, none), "cuda::moe_layer: width, hidden: expected at most 64 * 65535", error);
  }
}

}  // namespace cuda_moe_many_test
