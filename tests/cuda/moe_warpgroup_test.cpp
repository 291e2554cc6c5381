// The experts of a layer by wgmma, behind a routing made by hand: hidden activations, which it keeps in the order of
// its steps, and results.
#include "cuda/experts.hpp"

#include <slimtrim/cuda/moe_warpgroup.cuh>
#include <doctest/doctest.h>

namespace cuda_moe_warpgroup_test {

using namespace slimtrim;
using cuda_tests::experts_on_both_sides;
using cuda_tests::routed;

namespace {

constexpr auto codes = cuda::tile_kind::codes4;

// The columns of 64 in the order in which the fragments of four instructions have them.
index_t place_in_steps(index_t column) {
  for (int at = 0; at < 64; ++at)
    if (cuda::block_column(at / 16, at % 16) == column % 64) return column / 64 * 64 + at;
  return -1;
}

template <class T, cuda::tile_kind Kind>
cuda_tests::experts_check<T> checked(cuda_tests::device_memory& device) {
  return {[&device](cuda::moe_layer_view<T> const& layer, device_matrix<T const> X, device_matrix<float> Y,
                    cuda::moe_workspace<T> const& work, bool accumulate) {
            cuda::moe_warpgroup<T, Kind, float>(device.backend().on(), layer, X, Y, work, accumulate);
          },
          // A code times its scale is rounded to T; elements of 16 bits are what they are.
          cuda::has_codes(Kind) ? cuda_tests::unit_of<T>() : 0.0, place_in_steps};
}

// No token, one, and several experts' worth; an expert that nobody chooses and slots that nobody fills.
template <class T, cuda::tile_kind Kind>
void check_tokens(cuda_tests::expert_shape const& shape) {
  cuda_tests::device_memory device;
  experts_on_both_sides<T> const all(device, shape, Kind);
  for (index_t tokens : {0, 1, 17}) {
    routed const chosen(tokens, shape.experts, 2, 4);
    checked<T, Kind>(device)(all, chosen, tokens == 17);
  }
}

}  // namespace

TEST_CASE("moe_warpgroup: 4-bit codes, an odd number of column blocks, then one") { check_tokens<bfloat16, codes>({.experts = 3}); }

TEST_CASE("moe_warpgroup: rows of gate and up, and of down, for more than one block") {
  cuda_tests::device_memory device;
  experts_on_both_sides<bfloat16> const all(device, {.hidden = 320, .width = 192, .experts = 1}, codes);
  checked<bfloat16, codes>(device)(all, cuda_tests::all_to(3, 1, 0));
}

TEST_CASE("moe_warpgroup: groups of 64, zero points in some experts") {
  check_tokens<bfloat16, codes>({.hidden = 128, .experts = 3, .group = 64, .with_zeros = true});
}

TEST_CASE("moe_warpgroup: 16-bit weights, and float16 activations") {
  check_tokens<bfloat16, cuda::tile_kind::bfloat16>({.hidden = 128, .experts = 3});
  check_tokens<float16, codes>({.hidden = 64, .experts = 3, .with_zeros = true});
}

TEST_CASE("moe_warpgroup: an expert whose pairs begin a second tile of 128") {
  cuda_tests::device_memory device;
  experts_on_both_sides<bfloat16> const all(device, {.hidden = 64, .experts = 1}, cuda::tile_kind::bfloat16);
  for (index_t tokens : {128, 129})
    checked<bfloat16, cuda::tile_kind::bfloat16>(device)(all, cuda_tests::all_to(tokens, 1, 0));
}

TEST_CASE("moe_warpgroup: where no token has an expert zeros are written, or what is there stays") {
  cuda_tests::device_memory device;
  experts_on_both_sides<bfloat16> const all(device, {.hidden = 64}, codes);
  for (bool accumulate : {false, true}) checked<bfloat16, codes>(device)(all, cuda_tests::all_to(3, 4, -1), accumulate);
}

TEST_CASE("moe_warpgroup: a result in columns, of activations in rows that no wide load can read") {
  cuda_tests::device_memory device;
  experts_on_both_sides<bfloat16> const all(device, {}, codes);
  auto check = checked<bfloat16, codes>(device);
  check.run = [inner = check.run, &device](cuda::moe_layer_view<bfloat16> const& layer, device_matrix<bfloat16 const> X,
                                           device_matrix<float> Y, cuda::moe_workspace<bfloat16> const& work,
                                           bool accumulate) {
    tensor<bfloat16, 2> copy(X.extent(0), X.extent(1));
    cuda::copy_to_host(device.backend().on().stream(), X.data, X.size(), copy.view().data);
    inner(layer, as_const(device.upload_matrix<bfloat16>(copy, backend_tests::layout::padded_rows)), Y, work,
          accumulate);
  };
  check(all, cuda_tests::all_to(5, 4, 1), false, backend_tests::layout::columns);
}

TEST_CASE("moe_warpgroup: more rows than a grid can hold are refused") {
  cuda_tests::device_memory device;
  experts_on_both_sides<bfloat16> const all(device, {.hidden = 64}, codes);
  auto const work = all.workspace(1, 1);
  auto const none = rows(device.matrix<bfloat16>(1, 64), 0, 0);
  for (bool is_width : {false, true}) {
    auto layer = all.with_slots(1);
    auto const run = [&] {
      cuda::moe_warpgroup<bfloat16, codes, float>(device.backend().on(), layer, as_const(none),
                                                  rows(device.matrix<float>(1, 64), 0, 0), work, false);
    };
    (is_width ? layer.width : layer.hidden) = (is_width ? 128 : 256) * index_t{65535};
    run();
    (is_width ? layer.width : layer.hidden) += 64;
    CHECK_THROWS_WITH_AS(run(), "cuda::moe_layer: width, hidden: expected at most 128 * 65535", error);
  }
}

}  // namespace cuda_moe_warpgroup_test
