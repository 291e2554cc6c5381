// The fused layer against plain loops: the host's routing, then every chosen expert element by element of its tiles.
#include "cuda/weights.hpp"

#include <doctest/doctest.h>
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/cuda/moe_layer.cuh>
#include <slimtrim/router/route.hpp>

#include <cstring>
#include <list>
#include <vector>

namespace cuda_moe_layer_test {

using namespace slimtrim;
using cuda_tests::code_matrix;

namespace {

enum class made_of { codes, halves, sparse };

struct layer_on_both_sides {
  cuda_tests::device_memory device;
  index_t hidden, width, experts;
  std::vector<cuda::host_tiles> gate_up, down;
  std::list<std::vector<std::uint64_t>> masks;
  tensor<bfloat16, 2> router;
  cuda::moe_layer_view<bfloat16> view{};

  layer_on_both_sides(index_t h, index_t f, index_t e, made_of weights, routing_rule const& rule)
      : hidden(h), width(f), experts(e), router(e, h) {
    std::vector<cuda::tile_weight_view> gate_up_views, down_views;
    for (index_t i = 0; i < e; ++i) {
      auto const seed = static_cast<std::uint64_t>(10 * i);
      if (weights == made_of::sparse) {
        code_matrix const gate(f, h, 128, i % 2 == 0, seed), up(f, h, 128, i % 2 == 0, seed + 1),
            out(h, f, 64, false, seed + 2);
        auto const thin = [&](code_matrix const& w) {
          masks.emplace_back();
          for (index_t k = 0; k < w.view.rows * ceil_div(w.view.columns, 64); ++k)
            masks.back().push_back(k % 2 == 0 ? 0x3a5c9c6a3a5c9c6aULL : 0xac5c36699635ca5cULL);  // two of every four
          return cuda::sparse_rows<space::host>{
              w.view,
              tensor_view<std::uint64_t const, 2>(masks.back().data(), w.view.rows, ceil_div(w.view.columns, 64))};
        };
        cuda::fused_rows<cuda::sparse_rows<space::host>> const both{thin(gate), thin(up)};
        gate_up.push_back(
            cuda::pack_tiles(both, cuda::plan_tiles(both.gate, cuda::tile_scale::bfloat16, true), i % 2 == 0));
        down.push_back(cuda::pack_tiles(thin(out)));
      } else if (weights == made_of::codes) {
        code_matrix const gate(f, h, 128, i % 2 == 0, seed), up(f, h, 128, i % 2 == 0, seed + 1), out(h, f, 64, false, seed + 2);
        cuda::fused_rows<cuda::code_rows<space::host>> const both{{gate.view}, {up.view}};
        gate_up.push_back(cuda::pack_tiles(both, cuda::plan_tiles(gate.view, cuda::tile_scale::bfloat16, true), i % 2 == 0));
        down.push_back(cuda::pack_tiles(out.view));
      } else {
        auto const gate = cuda_tests::random_halves(f, h, seed), up = cuda_tests::random_halves(f, h, seed + 1);
        cuda::fused_rows<cuda::half_rows<bfloat16, space::host>> const both{{gate.view()}, {up.view()}};
        gate_up.push_back(cuda::pack_tiles(both, cuda::plan_tiles<bfloat16>(gate.view(), true), false));
        down.push_back(cuda::pack_tiles<bfloat16>(cuda_tests::random_halves(h, f, seed + 2).view()));
      }
      gate_up_views.push_back(cuda_tests::upload_tiles(device, gate_up.back()));
      down_views.push_back(cuda_tests::upload_tiles(device, down.back()));
    }
    for (index_t i = 0; i < e * h; ++i)
      router.view().data[i] = bfloat16(static_cast<float>(0.3 * normal_at(77, 0, static_cast<std::uint64_t>(i))));
    view.rule = rule;
    view.experts = e;
    view.hidden = h;
    view.width = f;
    view.router = as_const(device.upload_matrix<bfloat16>(router));
    view.gate_up = device.keep<cuda::tile_weight_view>(gate_up_views.data(), e);
    view.down = device.keep<cuda::tile_weight_view>(down_views.data(), e);
  }

  // expert(x) in double, hidden activations rounded as the layer rounds them.
  void add_expert(index_t e, bfloat16 const* x, double factor, double* y) const {
    auto const& in = gate_up[static_cast<std::size_t>(e)].view;
    auto const& out = down[static_cast<std::size_t>(e)].view;
    std::vector<double> inner(static_cast<std::size_t>(width));
    for (index_t f = 0; f < width; ++f) {
      double gate = 0, up = 0;
      for (index_t j = 0; j < hidden; ++j) {
        double const value = static_cast<double>(static_cast<float>(x[j]));
        gate += value * static_cast<double>(cuda::element_at(in, cuda::fused_row(f, false), j));
        up += value * static_cast<double>(cuda::element_at(in, cuda::fused_row(f, true), j));
      }
      inner[static_cast<std::size_t>(f)] = static_cast<double>(static_cast<float>(bfloat16(static_cast<float>(gate / (1 + std::exp(-gate)) * up))));
    }
    for (index_t j = 0; j < hidden; ++j) {
      double sum = 0;
      for (index_t f = 0; f < width; ++f) sum += inner[static_cast<std::size_t>(f)] * static_cast<double>(cuda::element_at(out, j, f));
      y[j] += factor * sum;
    }
  }

  template <cuda::tile_kind Kind>
  void check(index_t tokens, cuda::moe_path path, std::vector<std::uint8_t> const& kept = {}, bool accumulate = false,
             double tolerance = 1e-6) {
    tensor<bfloat16, 2> X(tokens, hidden);
    for (index_t i = 0; i < tokens * hidden; ++i)
      X.view().data[i] = bfloat16(static_cast<float>(0.5 * normal_at(5, 5, static_cast<std::uint64_t>(i))));
    tensor<float, 2> logits(tokens, experts);
    for (index_t t = 0; t < tokens; ++t)
      for (index_t e = 0; e < experts; ++e) {
        double sum = 0;
        for (index_t j = 0; j < hidden; ++j)
          sum += static_cast<double>(static_cast<float>(X(t, j))) * static_cast<double>(static_cast<float>(router(e, j)));
        logits(t, e) = static_cast<float>(sum);
      }
    tensor<std::int32_t, 2> indices(tokens, view.rule.top_k);
    tensor<float, 2> factors(tokens, view.rule.top_k);
    vector_view<std::uint8_t const> host_kept;
    if (!kept.empty()) host_kept = vector_view<std::uint8_t const>(kept.data(), experts);
    route(reference_backend{}, as_const(logits.view()), view.rule, {}, indices.view(), factors.view(), {}, host_kept);
    std::vector<double> expected(static_cast<std::size_t>(tokens * hidden), accumulate ? 1.0 : 0.0);
    for (index_t t = 0; t < tokens; ++t)
      for (index_t s = 0; s < view.rule.top_k; ++s)
        if (indices(t, s) >= 0) add_expert(indices(t, s), &X(t, 0), static_cast<double>(factors(t, s)), expected.data() + t * hidden);

    auto layer = view;
    if (!kept.empty()) layer.kept = device_vector<std::uint8_t const>(device.keep<std::uint8_t>(kept.data(), experts), experts);
    cuda::moe_workspace<bfloat16> const work(device.backend().on(), tokens, view.rule.top_k, experts, width, hidden);
    tensor<float, 2> start(tokens, hidden);
    start.fill(accumulate ? 1.0F : std::nanf(""));
    auto const Y = device.upload_matrix<float>(start);
    auto const x = as_const(device.upload_matrix<bfloat16>(X));
    for (int again = 0; again < 2; ++again) {  // the second call finds the workspace as the first one left it
      if (again == 1 && accumulate) break;
      cuda::moe_layer<bfloat16, Kind, float>(device.backend().on(), layer, x, Y, work, accumulate, path);
    }
    device.backend().synchronise();
    auto const found = device.download<float>(Y);
    double error = 0, size = 0;
    for (std::size_t i = 0; i < found.size(); ++i) {
      double const difference = static_cast<double>(found[i]) - expected[i];
      error += difference * difference;
      size += expected[i] * expected[i];
    }
    CAPTURE(tokens);
    // Sums agree to 1e-6; now and then a hidden activation falls to the other side of a rounding to bfloat16.
    CHECK(error <= tolerance * size);
  }
};

}  // namespace

TEST_CASE("moe_layer: few tokens, 4-bit experts") {
  layer_on_both_sides layer(128, 192, 4, made_of::codes, {});
  for (index_t tokens : {0, 1, 3, 11, 17, 40}) layer.check<cuda::tile_kind::codes4>(tokens, cuda::moe_path::few);
  layer.check<cuda::tile_kind::codes4>(4, cuda::moe_path::few, {}, true);
}

TEST_CASE("moe_layer: many tokens, 4-bit experts") {
  layer_on_both_sides layer(128, 192, 4, made_of::codes, {});
  for (index_t tokens : {1, 40, 90}) layer.check<cuda::tile_kind::codes4>(tokens, cuda::moe_path::many);
  layer.check<cuda::tile_kind::codes4>(90, cuda::moe_path::automatic);
}

TEST_CASE("moe_layer: bfloat16 experts, many small ones, another rule") {
  layer_on_both_sides layer(64, 64, 20, made_of::halves, {.top_k = 5, .renormalise = false});
  layer.check<cuda::tile_kind::bfloat16>(1, cuda::moe_path::few);
  layer.check<cuda::tile_kind::bfloat16>(13, cuda::moe_path::few);
  layer.check<cuda::tile_kind::bfloat16>(13, cuda::moe_path::many);
}

TEST_CASE("moe_layer: many tokens by wgmma, 4-bit and bfloat16 experts") {
  // Weights are rounded with their scale: 2^-8 of each product, in the mean of squares 2^-18 / 3 at every product.
  layer_on_both_sides layer(128, 192, 4, made_of::codes, {});
  for (index_t tokens : {1, 90})
    layer.check<cuda::tile_kind::codes4>(tokens, cuda::moe_path::warpgroup, {}, false, 0x1p-16);
  layer.check<cuda::tile_kind::codes4>(9, cuda::moe_path::warpgroup, {0, 0, 1, 0}, true, 0x1p-16);
  layer.check<cuda::tile_kind::codes4>(3, cuda::moe_path::warpgroup, {0, 0, 0, 0}, false, 0x1p-16);
  layer_on_both_sides dense(64, 64, 6, made_of::halves, {});
  dense.check<cuda::tile_kind::bfloat16>(300, cuda::moe_path::warpgroup);  // more than one tile of 128 for an expert
}

TEST_CASE("moe_layer: 2:4 sparse 4-bit experts") {
  layer_on_both_sides layer(128, 192, 4, made_of::sparse, {});
  for (index_t tokens : {1, 11}) layer.check<cuda::tile_kind::sparse4>(tokens, cuda::moe_path::few);
  layer.check<cuda::tile_kind::sparse4>(40, cuda::moe_path::many);
}

TEST_CASE("moe_layer: the same bits from run to run") {
  layer_on_both_sides layer(128, 192, 4, made_of::codes, {});
  auto& device = layer.device;
  index_t const tokens = 17;
  auto const X = as_const(device.upload_matrix<bfloat16>(cuda_tests::random_halves(tokens, 128, 3)));
  cuda::moe_workspace<bfloat16> const work(device.backend().on(), tokens, 2, 4, 192, 128);
  for (auto path : {cuda::moe_path::few, cuda::moe_path::many}) {
    std::vector<float> first;
    for (int run = 0; run < 3; ++run) {
      auto const Y = device.matrix<float>(tokens, 128);  // poison
      cuda::moe_layer<bfloat16, cuda::tile_kind::codes4, float>(device.backend().on(), layer.view, X, Y, work, false,
                                                                path);
      auto const found = device.download<float>(Y);
      if (run == 0) first = found;
      REQUIRE(std::memcmp(found.data(), first.data(), sizeof(float) * found.size()) == 0);
    }
  }
}

TEST_CASE("moe_layer: a keep-mask, down to all tokens on one expert and to no expert at all") {
  layer_on_both_sides layer(64, 64, 4, made_of::codes, {});
  for (auto path : {cuda::moe_path::few, cuda::moe_path::many}) {
    layer.check<cuda::tile_kind::codes4>(9, path, {1, 0, 1, 0});
    layer.check<cuda::tile_kind::codes4>(9, path, {0, 0, 1, 0});
    layer.check<cuda::tile_kind::codes4>(3, path, {0, 0, 0, 0});
  }
}

TEST_CASE("moe_layer: what does not fit is refused") {
  layer_on_both_sides layer(64, 64, 4, made_of::codes, {});
  auto& on = layer.device.backend().on();
  cuda::moe_workspace<bfloat16> const work(on, 2, 2, 4, 64, 64);
  auto const X = as_const(layer.device.matrix<bfloat16>(3, 64));
  auto const Y = layer.device.matrix<float>(3, 64);
  auto const run = [&](cuda::moe_layer_view<bfloat16> const& view, device_matrix<bfloat16 const> x, device_matrix<float> y) {
    cuda::moe_layer<bfloat16, cuda::tile_kind::codes4, float>(on, view, x, y, work);
  };
  CHECK_THROWS_AS(run(layer.view, X, Y), error);
  auto on_input = layer.view;
  on_input.rule.weight_scales_input = true;
  CHECK_THROWS_AS(run(on_input, rows(X, 0, 2), rows(Y, 0, 2)), error);
  CHECK_THROWS_AS(run(layer.view, rows(X, 0, 2), Y), error);
  auto wider = layer.view;
  wider.router = as_const(layer.device.matrix<bfloat16>(5, 64));
  CHECK_THROWS_WITH_AS(run(wider, rows(X, 0, 2), rows(Y, 0, 2)),
                       "cuda::moe_layer: rows of the router: expected 4, found 5", error);
}

}  // namespace cuda_moe_layer_test
