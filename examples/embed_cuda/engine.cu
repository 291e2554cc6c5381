// An engine with its own tensors on its own stream rounds its experts to 4 bits, runs slimtrim's fused mixture-of-experts
// layer and asks how much the layer changes a token: docs/cuda.md.
#include <slimtrim/cuda/backend.cuh>
#include <slimtrim/cuda/moe_layer.cuh>
#include <slimtrim/cuda/product.cuh>
#include <slimtrim/cuda/quantize.cuh>
#include <slimtrim/similarity/cosine.hpp>
#include <slimtrim/tensor/adapt.hpp>

#include <cstdio>
#include <memory>
#include <vector>

// The engine's tensor: a pitched matrix in device memory.
template <class T>
struct engine_tensor {
  long rows, columns, pitch = (columns + 63) / 64 * 64;
  std::shared_ptr<T> memory{[](std::size_t bytes) {
                              void* data = nullptr;
                              slimtrim::cuda::check(cudaMalloc(&data, bytes), "engine");
                              return static_cast<T*>(data);
                            }(sizeof(T) * static_cast<std::size_t>(rows * pitch)),
                            [](T* data) { cudaFree(data); }};
};

// All that slimtrim has to know of it: where the elements lie.
template <class T>
struct slimtrim::tensor_traits<engine_tensor<T>> {
  template <int Rank, class Tensor>
    requires(Rank == 2)
  static device_matrix<T> view(Tensor& x) {
    return device_matrix<T>(x.memory.get(), {x.rows, x.columns}, {x.pitch, 1});
  }
};

__global__ void fill(slimtrim::bfloat16* to, long count, float size, unsigned seed) {
  for (long i = threadIdx.x + 256L * blockIdx.x; i < count; i += 256L * gridDim.x) {
    unsigned const x = (static_cast<unsigned>(i) + seed) * 0x9E3779B9U, y = (x ^ x >> 15) * 0x85EBCA6BU;
    to[i] = slimtrim::bfloat16(size * (static_cast<float>(y ^ y >> 13) * 0x1p-31F - 1));
  }
}

int main() try {
  using namespace slimtrim;
  using codes = cuda::code_rows<space::device>;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return std::puts("skipped: no CUDA device"), 77;
  constexpr long tokens = 5, hidden = 512, width = 768, experts = 8, group = 128;
  cudaStream_t stream{};
  cuda::check(cudaStreamCreate(&stream), "engine");
  cuda_backend const gpu(stream);  // works on the engine's stream and in the engine's memory
  cuda::context& on = gpu.on();
  auto const random = [&](long rows, long columns, float size, unsigned seed) {
    engine_tensor<bfloat16> const made{rows, columns};
    fill<<<64, 256, 0, stream>>>(made.memory.get(), rows * made.pitch, size, seed);
    return made;
  };
  std::vector<std::shared_ptr<void>> weights;  // the engine's, too
  auto const make = [&]<class T>(T*, long count) {
    engine_tensor<T> const made{1, count};
    weights.push_back(made.memory);
    return made.memory.get();
  };
  auto const quantised = [&](engine_tensor<bfloat16> const& W) {
    device_matrix<std::uint32_t> const words(make((std::uint32_t*)nullptr, W.rows * W.columns / 8), W.rows, W.columns / 8);
    device_matrix<float> const scales(make((float*)nullptr, W.rows * W.columns / group), W.rows, W.columns / group);
    cuda::quantise<bfloat16>(on, as_const(as_matrix(W)), {}, group, scale_type::bfloat16, {words, scales, {}});
    return codes{{.rows = W.rows, .columns = W.columns, .words = words.data, .words_per_row = W.columns / 8,
                  .block_columns = group, .scales = scales}};
  };
  auto const packed = [&](auto const& source, cuda::tile_weight_view tiles) {
    auto* const words = make((cuda::words4*)nullptr, tiles.words_needed());
    auto* const scales = make((std::uint16_t*)nullptr, tiles.scales_needed());
    cuda::pack_tiles_on_device(on, source, tiles, words, scales, nullptr);
    return tiles.words = words, tiles.scales = scales, tiles;
  };
  std::vector<cuda::tile_weight_view> tiles(2 * experts);
  for (unsigned e = 0; e < experts; ++e) {
    codes const gate = quantised(random(width, hidden, 0.1F, 3 * e)), up = quantised(random(width, hidden, 0.1F, 3 * e + 1));
    codes const down = quantised(random(hidden, width, 0.1F, 3 * e + 2));
    tiles[e] = packed(cuda::fused_rows<codes>{gate, up}, cuda::plan_tiles(gate.w, cuda::tile_scale::bfloat16, true));
    tiles[experts + e] = packed(down, cuda::plan_tiles(down.w, cuda::tile_scale::bfloat16));
  }
  auto* const views = make((cuda::tile_weight_view*)nullptr, 2 * experts);
  cuda::copy_to_device(stream, tiles.data(), 2 * experts, views);
  engine_tensor<bfloat16> const router = random(experts, hidden, 1, 1000), X = random(tokens, hidden, 1, 2000), Y{tokens, hidden};
  engine_tensor<float> const similarity{1, tokens};
  cuda::moe_layer_view<bfloat16> const layer{.rule = {.top_k = 2}, .experts = experts, .hidden = hidden, .width = width,
                                             .router = as_const(as_matrix(router)), .gate_up = views, .down = views + experts};
  cuda::moe_workspace<bfloat16> const work(on, tokens, 2, experts, width, hidden);
  cuda::moe_layer<bfloat16, cuda::tile_kind::codes4, bfloat16>(on, layer, as_const(as_matrix(X)), as_matrix(Y), work);
  row_cosines(gpu, as_const(as_matrix(X)), as_const(as_matrix(Y)), row(as_matrix(similarity), 0));
  gpu.synchronise();
  float found[tokens];
  cuda::copy_to_host(stream, similarity.memory.get(), tokens, found);
  for (float const value : found) std::printf("cosine of a token before and after the layer: %.4f\n", value);
} catch (std::exception const& wrong) {
  return std::fprintf(stderr, "engine: %s\n", wrong.what()), 1;
}
