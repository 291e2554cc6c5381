// What the benchmarks of cuda/ share: time by events over graph replays, random data made on the device, one table.
//
// Inputs rotate among copies that together are several times the L2 cache. Times are medians; ratios are taken within one
// run, against ceilings that the same run measured.
#pragma once

#include <slimtrim/cuda/backend.cuh>
#include <slimtrim/cuda/tile_weight.hpp>

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace cuda_bench {

using namespace slimtrim;

/// One line of the table, and one object of the JSON.
struct result {
  std::string name;
  double microseconds = 0;
  std::vector<std::pair<std::string, double>> figures{};
};

/// One line of the issue's table: what was measured against what must and what should be reached.
struct verdict {
  std::string what;
  double value = 0, must = 0, aim = 0;
  bool at_most = false;  // smaller is better
};

struct session {
  cudaStream_t stream{};
  cuda_backend backend;
  double read_bandwidth = 0;   // bytes a second
  double cublas_rate = 0;      // bf16 operations a second
  std::vector<result> results{};
  std::vector<verdict> verdicts{};

  void judge(std::string what, double value, double must, double aim, bool at_most = false) {
    verdicts.push_back({std::move(what), value, must, aim, at_most});
  }
  explicit session(cudaStream_t on) : stream(on), backend(on) {}

  // SLIMTRIM_BENCH_DRY in the environment: a sixteenth of every size, up to 256 tokens, two copies, so that the benchmarks' own code is
  // tested where there is no device and a figure means nothing.
  bool dry = std::getenv("SLIMTRIM_BENCH_DRY") != nullptr;
  [[nodiscard]] index_t size(index_t full) const { return dry ? std::max<index_t>(full / 16, std::min<index_t>(full, 256)) : full; }
  [[nodiscard]] int copies(int full) const { return dry ? 2 : full; }
  [[nodiscard]] bool skips(index_t tokens) const { return dry && tokens > 256; }

  cuda::context& on() { return backend.on(); }

  void add(result line) {
    std::printf("%-46s %11.2f us", line.name.c_str(), line.microseconds);
    for (auto const& [what, value] : line.figures) std::printf("  %s %.3f", what.c_str(), value);
    std::printf("\n");
    std::fflush(stdout);
    results.push_back(std::move(line));
  }
  [[nodiscard]] double bandwidth_share(double bytes, double microseconds) const {
    return bytes / (microseconds * 1e-6) / read_bandwidth;
  }
  [[nodiscard]] double rate_share(double operations, double microseconds) const {
    return operations / (microseconds * 1e-6) / cublas_rate;
  }
};

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Median microseconds of one call of `run(i)`, i counting calls so that inputs can rotate; `calls` of them are one graph.
inline double time_graph(session& s, int calls, std::function<void(int)> const& run, int replays = 15) {
  for (int i = 0; i < calls; ++i) run(i);  // loads modules, makes handles, fills the pool
  s.backend.synchronise();
  cudaGraph_t graph{};
  cudaGraphExec_t executable{};
  cuda::check(cudaStreamBeginCapture(s.stream, cudaStreamCaptureModeThreadLocal), "capture");
  for (int i = 0; i < calls; ++i) run(i);
  cuda::check(cudaStreamEndCapture(s.stream, &graph), "capture");
  cuda::check(cudaGraphInstantiate(&executable, graph, 0), "graph");
  cudaEvent_t begin{}, end{};
  cuda::check(cudaEventCreate(&begin), "event");
  cuda::check(cudaEventCreate(&end), "event");
  std::vector<double> times;
  for (int r = 0; r < replays + 3; ++r) {
    cuda::check(cudaEventRecord(begin, s.stream), "event");
    cuda::check(cudaGraphLaunch(executable, s.stream), "graph");
    cuda::check(cudaEventRecord(end, s.stream), "event");
    cuda::check(cudaEventSynchronize(end), "event");
    float milliseconds = 0;
    cuda::check(cudaEventElapsedTime(&milliseconds, begin, end), "event");
    if (r >= 3) times.push_back(1e3 * static_cast<double>(milliseconds) / calls);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  int device = 0;
  cuda::check(cudaGetDevice(&device), "device");
  cuda::check(cudaDeviceGraphMemTrim(device), "graph memory");  // scratch of the graph
  return median(times);
}

/// The same without a graph, for what waits for the host.
inline double time_calls(session& s, int calls, std::function<void(int)> const& run, int repeats = 7) {
  cudaEvent_t begin{}, end{};
  cuda::check(cudaEventCreate(&begin), "event");
  cuda::check(cudaEventCreate(&end), "event");
  std::vector<double> times;
  for (int r = 0; r < repeats + 1; ++r) {
    cuda::check(cudaEventRecord(begin, s.stream), "event");
    for (int i = 0; i < calls; ++i) run(i);
    cuda::check(cudaEventRecord(end, s.stream), "event");
    cuda::check(cudaEventSynchronize(end), "event");
    float milliseconds = 0;
    cuda::check(cudaEventElapsedTime(&milliseconds, begin, end), "event");
    if (r >= 1) times.push_back(1e3 * static_cast<double>(milliseconds) / calls);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return median(times);
}

static __global__ void fill_bits(std::uint32_t* to, index_t count, std::uint32_t seed) {
  index_t const step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    std::uint32_t x = static_cast<std::uint32_t>(i) * 0x9E3779B9U ^ seed;
    x = (x ^ x >> 16) * 0x85EBCA6BU;
    x = (x ^ x >> 13) * 0xC2B2AE35U;
    to[i] = x ^ x >> 16;
  }
}

// The places of sparse tiles: two different ones, ascending, in every four bits of the last third of a tile.
static __global__ void fill_places(std::uint32_t* words, index_t count) {
  index_t const step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    if (i % cuda::sparse_tile::words < cuda::sparse_tile::place_words) continue;
    std::uint32_t x = words[i], places = 0;
    for (int n = 0; n < 8; ++n, x >>= 4) {
      std::uint32_t const first = x & 1U, second = first + 1 + (x >> 1 & 1U);
      places |= (first | second << 2) << (4 * n);
    }
    words[i] = places;
  }
}

// Uniform in (-size, size), or around `size` when `positive`, as bfloat16.
static __global__ void fill_halves(bfloat16* to, index_t count, float size, bool positive, std::uint32_t seed) {
  index_t const step = static_cast<index_t>(gridDim.x) * blockDim.x;
  for (index_t i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    std::uint32_t x = static_cast<std::uint32_t>(i) * 0x9E3779B9U ^ seed;
    x = (x ^ x >> 16) * 0x85EBCA6BU;
    x = (x ^ x >> 13) * 0xC2B2AE35U;
    float const u = static_cast<float>(x ^ x >> 16) * 0x1p-32F;
    to[i] = bfloat16(positive ? size * (0.5F + u) : size * (2 * u - 1));
  }
}

inline cuda::device_buffer<bfloat16> random_halves(session& s, index_t count, float size, std::uint32_t seed, bool positive = false) {
  cuda::device_buffer<bfloat16> made(count);
  cuda::launch(s.stream, {dim3(1024), 256, 0}, fill_halves, made.data(), count, size, positive, seed);
  return made;
}

/// Random tiles: any bits are codes, so they need no packing.
struct random_tiles {
  cuda::tile_weight_view view{};
  cuda::device_buffer<cuda::words4> words{};
  cuda::device_buffer<bfloat16> scales{};

  random_tiles(session& s, index_t rows, index_t columns, cuda::tile_kind kind, std::uint32_t seed) {
    view.rows = rows;
    view.columns = columns;
    view.kind = kind;
    view.scale_kind = cuda::has_codes(kind) ? cuda::tile_scale::bfloat16 : cuda::tile_scale::none;
    view.group_shift = 1;
    words = cuda::device_buffer<cuda::words4>(view.words_needed());
    if (cuda::has_codes(kind)) {
      cuda::launch(s.stream, {dim3(1024), 256, 0}, fill_bits, reinterpret_cast<std::uint32_t*>(words.data()),
                   4 * view.words_needed(), seed);
      if (kind == cuda::tile_kind::sparse4)
        cuda::launch(s.stream, {dim3(1024), 256, 0}, fill_places, reinterpret_cast<std::uint32_t*>(words.data()),
                     4 * view.words_needed());
      scales = random_halves(s, view.scales_needed(), 0.01F, seed + 1, true);
      view.scales = reinterpret_cast<std::uint16_t const*>(scales.data());
    } else {
      cuda::launch(s.stream, {dim3(1024), 256, 0}, fill_halves, reinterpret_cast<bfloat16*>(words.data()),
                   8 * view.words_needed(), 0.03F, false, seed);
    }
    view.words = words.data();
  }
};

/// The whole of a row-major buffer as a matrix.
template <class T>
device_matrix<T const> reading(cuda::device_buffer<T> const& from, index_t rows, index_t columns) {
  return as_const(from.matrix(rows, columns));
}

// The cases, one a file, in the order in which main runs them.
void bench_ceilings(session&);
void bench_products(session&);
void bench_moe_layer(session&);
void bench_rows(session&);
void bench_gptq(session&);
void bench_awq(session&);

}  // namespace cuda_bench
