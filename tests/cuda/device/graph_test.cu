// What only a device can show: kernels captured in a graph and replayed give the bits of a plain call, again and again,
// into poisoned memory; and everything works as before after memory ran out.
#include "cuda/weights.hpp"

#include <slimtrim/cuda/moe_layer.cuh>
#include <slimtrim/cuda/product.cuh>
#include <doctest/doctest.h>

#include <cstring>
#include <functional>
#include <vector>

namespace cuda_graph_test {

using namespace slimtrim;
using cuda_tests::code_matrix;
using cuda_tests::own_stream;

namespace {

// run() once as it is, then from a graph three times, each time into poison: the same bits.
void check_replays(cuda_backend const& backend, device_matrix<float> Y, std::function<void()> const& run) {
  cudaStream_t const stream = backend.stream();
  auto const bytes = sizeof(float) * static_cast<std::size_t>(Y.size());
  auto const result = [&] {
    std::vector<float> found(static_cast<std::size_t>(Y.size()));
    cuda::copy_to_host(stream, Y.data, Y.size(), found.data());
    return found;
  };
  cuda::check(cudaMemsetAsync(Y.data, 0xff, bytes, stream), "poison");
  run();
  backend.synchronise();
  auto const expected = result();
  for (float const value : expected) REQUIRE(value == value);
  cudaGraph_t graph{};
  cudaGraphExec_t executable{};
  cuda::check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  run();
  cuda::check(cudaStreamEndCapture(stream, &graph), "capture");
  cuda::check(cudaGraphInstantiate(&executable, graph, 0), "graph");
  for (int i = 0; i < 3; ++i) {
    cuda::check(cudaMemsetAsync(Y.data, 0xff, bytes, stream), "poison");
    cuda::check(cudaGraphLaunch(executable, stream), "graph");
    auto const found = result();
    CHECK(std::memcmp(found.data(), expected.data(), bytes) == 0);
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

struct small_layer {
  static constexpr index_t hidden = 256, width = 192, experts = 8;
  std::vector<code_matrix> matrices;
  std::vector<cuda::host_tiles> tiles;
  cuda::moe_layer_view<bfloat16> view{};

  explicit small_layer(cuda_tests::device_memory& device) {
    std::vector<cuda::tile_weight_view> gate_up, down;
    for (std::uint64_t e = 0; e < experts; ++e) {
      code_matrix const gate(width, hidden, 128, false, 3 * e), up(width, hidden, 128, false, 3 * e + 1),
          out(hidden, width, 64, false, 3 * e + 2);
      cuda::fused_rows<cuda::code_rows<space::host>> const both{{gate.view}, {up.view}};
      tiles.push_back(cuda::pack_tiles(both, cuda::plan_tiles(gate.view, cuda::tile_scale::bfloat16, true), false));
      gate_up.push_back(cuda_tests::upload_tiles(device, tiles.back()));
      tiles.push_back(cuda::pack_tiles(out.view));
      down.push_back(cuda_tests::upload_tiles(device, tiles.back()));
    }
    view.experts = experts;
    view.hidden = hidden;
    view.width = width;
    view.router = as_const(device.upload_matrix<bfloat16>(cuda_tests::random_halves(experts, hidden, 77)));
    view.gate_up = device.keep<cuda::tile_weight_view>(gate_up.data(), experts);
    view.down = device.keep<cuda::tile_weight_view>(down.data(), experts);
  }
};

}  // namespace

TEST_CASE("graph: the layer and products replay to the same bits") {
  own_stream const on;
  cuda_tests::device_memory device(on.get());
  small_layer const layer(device);
  for (index_t tokens : {1, 17, 200}) {
    cuda::moe_workspace<bfloat16> const work(device.backend().on(), tokens, 2, layer.experts, layer.width,
                                             layer.hidden);
    auto const X = as_const(device.upload_matrix<bfloat16>(cuda_tests::random_halves(tokens, layer.hidden, 5)));
    auto const Y = device.matrix<float>(tokens, layer.hidden);
    for (auto const path : {cuda::moe_path::few, cuda::moe_path::many, cuda::moe_path::warpgroup}) {
      CAPTURE(tokens);
      check_replays(device.backend(), Y, [&] {
        cuda::moe_layer<bfloat16, cuda::tile_kind::codes4, float>(device.backend().on(), layer.view, X, Y, work, false,
                                                                  path);
      });
    }
  }
  code_matrix const w(256, 1024, 128, true, 9);
  auto const tiles = cuda::pack_tiles(w.view);
  auto const view = cuda_tests::upload_tiles(device, tiles);
  // Few, many with columns cut into parts, and expanded for cuBLAS, whose workspace and our scratch are allocated
  // inside the graph.
  for (index_t tokens : {3, 40, 800}) {
    auto const X = as_const(device.upload_matrix<bfloat16>(cuda_tests::random_halves(tokens, 1024, 6)));
    auto const Y = device.matrix<float>(tokens, 256);
    check_replays(device.backend(), Y,
                  [&] { cuda::product<bfloat16, cuda::tile_kind::codes4, float>(device.backend().on(), view, X, Y); });
  }
}

TEST_CASE("graph: a large layer whose blocks all draw tickets, a thousand times the same") {
  // Enough blocks of one strip that the last to finish differs from call to call; the ticket must not decide the order
  // of sums.
  own_stream const on;
  cuda_tests::device_memory device(on.get());
  small_layer const layer(device);
  index_t const tokens = 16;
  cuda::moe_workspace<bfloat16> const work(device.backend().on(), tokens, 2, layer.experts, layer.width, layer.hidden);
  auto const X = as_const(device.upload_matrix<bfloat16>(cuda_tests::random_halves(tokens, layer.hidden, 8)));
  auto const Y = device.matrix<float>(tokens, layer.hidden);
  std::vector<float> first;
  for (int i = 0; i < 1000; ++i) {
    cuda::moe_layer<bfloat16, cuda::tile_kind::codes4, float>(device.backend().on(), layer.view, X, Y, work, false,
                                                              cuda::moe_path::few);
    auto const found = device.download<float>(Y);
    if (i == 0) first = found;
    REQUIRE(std::memcmp(found.data(), first.data(), sizeof(float) * found.size()) == 0);
  }
}

}  // namespace cuda_graph_test
