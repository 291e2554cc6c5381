// The workspace of a layer, the checks in front of it, and silu(gate) * up.
#include "cuda/support.hpp"

#include <slimtrim/cuda/moe_view.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace cuda_moe_view_test {

using namespace slimtrim;

namespace {

__global__ void gate_all(float const* gate, float const* up, int count, float* out) {
  int const i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) out[i] = cuda::gated(gate[i], up[i]);
}

std::vector<float> gated(std::vector<float> const& gate, std::vector<float> const& up) {
  cuda_tests::device_memory device;
  auto const count = static_cast<index_t>(gate.size());
  auto const out = device.vector<float>(count);
  cuda::launch(device.backend().on().stream(), {dim3(cuda::blocks_for(ceil_div(count, 64))), 64, 0}, gate_all,
               device.keep<float>(gate.data(), count), device.keep<float>(up.data(), count), static_cast<int>(count),
               out.data);
  return device.download<float>(out);
}

}  // namespace

TEST_CASE("moe_view: silu(gate) * up") {
  std::vector<float> gate, up;
  for (float g = -90; g <= 90; g += 0.37F)
    for (float u : {-3.0F, -0.01F, 1.0F, 250.0F}) {
      gate.push_back(g);
      up.push_back(u);
    }
  auto const found = gated(gate, up);
  for (std::size_t i = 0; i < gate.size(); ++i) {
    auto const g = static_cast<double>(gate[i]);
    double const expected = g / (1 + std::exp(-g)) * static_cast<double>(up[i]);
    // Two units of the exponential, a half each of sum, quotient and product. Where the exponential leaves the range of
    // a float the result is 0 instead of at most 90 * 2^-128 of up.
    double const off = 0x1p-21 * std::abs(expected) + 90 * 0x1p-128 * std::abs(static_cast<double>(up[i]));
    REQUIRE(std::abs(static_cast<double>(found[i]) - expected) <= off);
  }
}

TEST_CASE("moe_view: a gate of any finite size leaves no NaN") {
  float const most = std::numeric_limits<float>::max();
  auto const found = gated({0.0F, most, -most, -88.0F, -89.0F, -104.0F}, {most, 1, most, most, 1, -1});
  CHECK(found[0] == 0.0F);
  CHECK(found[1] == most);
  CHECK(found[2] == 0.0F);
  for (float value : found) CHECK_FALSE(std::isnan(value));
}

TEST_CASE("moe_view: the parts of the groups lie side by side and fill their buffer") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  for (index_t tokens : {0, 1, 7}) {
    cuda::moe_workspace<bfloat16> const work(on, tokens, 3, 5, 128, 192);
    index_t const pairs = 3 * tokens;
    CHECK(work.indices.size() == pairs);
    CHECK(work.factors.size() == pairs);
    CHECK(work.activations.size() == pairs * 128);
    CHECK(work.routed.size() == pairs * 192);
    auto const groups = work.groups();
    CHECK(groups.offsets == work.group_words.data());
    CHECK(groups.pairs - groups.offsets == 5 + 1);
    CHECK(groups.position - groups.pairs == pairs);
    CHECK(groups.active - groups.position == pairs);
    CHECK(groups.active_count - groups.active == 5);
    CHECK(groups.active_count + 1 == work.group_words.data() + work.group_words.size());
    CHECK(device.download<unsigned>(work.tickets.view()) == std::vector<unsigned>(192 / 16, 0U));
  }
  cuda::moe_workspace<bfloat16> const none;
  CHECK(none.pairs == 0);
}

TEST_CASE("moe_view: layers and activations that do not fit are refused, and what fits exactly is not") {
  cuda_tests::device_memory device;
  cuda::moe_workspace<bfloat16> const work(device.backend().on(), 4, 2, 6, 128, 64);
  cuda::moe_layer_view<bfloat16> layer;
  layer.experts = 6;
  layer.hidden = 64;
  layer.width = 128;
  auto const X = as_const(device.matrix<bfloat16>(5, 64));
  auto const check = [&](cuda::moe_layer_view<bfloat16> const& of, index_t tokens) {
    cuda::check_moe_layer<bfloat16>(of, rows(X, 0, tokens), work);
  };
  check(layer, 4);
  check(layer, 0);
  char const* const room = "cuda::moe_layer: workspace: made for fewer tokens, experts or a smaller layer";
  CHECK_THROWS_WITH_AS(check(layer, 5), room, error);
  auto other = layer;
  other.rule.top_k = 3;
  check(other, 2);
  CHECK_THROWS_WITH_AS(check(other, 3), room, error);
  other = layer;
  other.experts = 7;
  CHECK_THROWS_WITH_AS(check(other, 4), room, error);
  other = layer;
  other.width = 192;
  CHECK_THROWS_WITH_AS(check(other, 4), room, error);
  other.width = 96;
  CHECK_THROWS_WITH_AS(check(other, 4), "cuda::moe_layer: hidden, width: expected multiples of 64", error);
  other = layer;
  other.hidden = 128;
  CHECK_THROWS_WITH_AS(check(other, 4), "cuda::moe_layer: columns of the activations: expected 128, found 64", error);
  // The strips' tickets and the rows of `routed` are those of one hidden size.
  auto const wide = as_const(device.matrix<bfloat16>(4, 128));
  CHECK_THROWS_WITH_AS(cuda::check_moe_layer<bfloat16>(other, wide, work), room, error);
}

TEST_CASE("moe_view: rules without what they need, and weights on the input, are refused") {
  cuda_tests::device_memory device;
  cuda::moe_workspace<bfloat16> const work(device.backend().on(), 1, 8, 6, 64, 64);
  cuda::moe_layer_view<bfloat16> layer;
  layer.experts = 6;
  layer.hidden = 64;
  layer.width = 64;
  auto const X = as_const(device.matrix<bfloat16>(1, 64));
  auto const check = [&](cuda::moe_layer_view<bfloat16> const& of) { cuda::check_moe_layer<bfloat16>(of, X, work); };
  check(layer);
  auto other = layer;
  other.rule.top_k = 0;
  CHECK_THROWS_WITH_AS(check(other), "routing_rule: top_k: expected at least 1", error);
  other = layer;
  other.rule.weight_scales_input = true;
  CHECK_THROWS_WITH_AS(check(other), "cuda::moe_layer: weights that multiply an expert's input are not supported",
                       error);
  char const* const bias = "cuda::moe_layer: selection_bias: expected exactly when the rule has one";
  other = layer;
  other.selection_bias = as_const(device.vector<float>(6));
  CHECK_THROWS_WITH_AS(check(other), bias, error);
  other.rule.selection_bias = true;
  check(other);
  other.selection_bias = {};
  CHECK_THROWS_WITH_AS(check(other), bias, error);
}

}  // namespace cuda_moe_view_test
