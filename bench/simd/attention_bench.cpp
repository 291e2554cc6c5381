// Attention of one new token over a long cache: the generic blocks over each storage, then the kernel. 32 heads of 128 share
// 8 key-value heads; the cache of eight layers is beyond the last-level cache.
#include "support.hpp"

#include <slimtrim/model/attention.hpp>
#include <slimtrim/model/kv_cache.hpp>

using namespace simd_bench;

namespace {

void attention_ladder(benchmark::State& state) {
  index_t const threads = state.range(0), positions = state.range(1), layers = 8;
  attention_shape const shape{32, 8, 128};
  index_t const width = shape.key_value_heads * shape.head_dim;
  thread_pool pool(threads);
  eigen_backend const generic(pool);
  simd_backend const fused(pool);
  model_config config;
  config.key_value_heads = shape.key_value_heads, config.head_dim = shape.head_dim;
  config.layers.resize(static_cast<std::size_t>(layers));
  auto const K = random_dense<float>(positions, width, 1), V = random_dense<float>(positions, width, 2);
  auto const Q = random_dense<float>(1, shape.heads * shape.head_dim, 3);
  tensor<float, 2> Z(1, shape.heads * shape.head_dim);
  std::vector<kv_cache> caches;
  for (auto const precision : {kv_precision::floating, kv_precision::float16, kv_precision::int8}) {
    caches.emplace_back(config, positions, precision);
    for (index_t layer = 0; layer < layers; ++layer) caches.back().store(&pool, layer, 0, K.view(), V.view());
  }
  read_bandwidth memory;
  auto over = [&](auto const& backend, kv_cache const& cache) {
    return [&] {
      for (index_t layer = 0; layer < layers; ++layer)
        causal_attention(backend, shape, Q.view(), cache.view(layer, positions), positions - 1, Z.view());
    };
  };
  std::vector<contender> runs{{"read 512 MiB", [&] { memory(&pool); }},
                              {"float, generic", over(generic, caches[0])},
                              {"float", over(fused, caches[0])},
                              {"float16", over(fused, caches[1])},
                              {"int8", over(fused, caches[2])}};
  for (auto _ : state) interleave_runs(runs, 9, threads == 1);
  double const ceiling = static_cast<double>(read_bandwidth::bytes) / median(runs[0]);
  double const elements = static_cast<double>(2 * layers * positions * width), bits[] = {0, 32, 32, 16, 8.25};
  for (std::size_t i = 1; i < runs.size(); ++i) {
    state.counters[runs[i].name + ": share of read"] = elements * bits[i] / 8 / median(runs[i]) / ceiling;
    state.counters[runs[i].name + ": x"] = speed_up(runs[i], runs[1]);
  }
  benchmark::DoNotOptimize(memory.kept());
}
BENCHMARK(attention_ladder)->Args({1, 4096})->Args({2, 4096})->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
