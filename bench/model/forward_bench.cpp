// One decoder layer of a Mixtral (hidden 1024, intermediate 3584, 8 experts, top-2) over 2048 tokens, against Eigen's
// float products of the same shapes on the same threads. Both report the rate of the matrix products' operations, so
// everything else that the layer does (norms, rotary, attention, routing, activation, reading bfloat16) counts as loss.
#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/model/forward.hpp>
#include <slimtrim/model/known_families.hpp>

#include <benchmark/benchmark.h>

#include <Eigen/Core>

#include <memory>
#include <vector>

namespace {

using namespace slimtrim;

constexpr index_t hidden = 1024, intermediate = 3584, experts = 8, top_k = 2, tokens = 2048;
constexpr index_t heads = 16, key_value_heads = 4, head_dim = 64;

constexpr double product_operations =
    2.0 * tokens * hidden *
    (2.0 * heads * head_dim + 2.0 * key_value_heads * head_dim + experts + 3.0 * top_k * intermediate);

weight random_bfloat16(index_t out, index_t in, std::uint64_t stream) {
  auto held = std::make_shared<tensor<bfloat16, 2>>(out, in);
  for (index_t i = 0; i < out * in; ++i)
    held->view().data[i] =
        bfloat16(static_cast<float>(0.06 * uniform_at(1, stream, static_cast<std::uint64_t>(i)) - 0.03));
  weight result;
  result.view = as_const(held->view());
  result.storage = std::move(held);
  return result;
}

model_config bench_config() {
  model_config config;
  config.family = &mixtral_family;
  config.hidden = hidden;
  config.heads = heads;
  config.key_value_heads = key_value_heads;
  config.head_dim = head_dim;
  config.rms_epsilon = 1e-5;
  config.rope_theta = 10000;
  config.layers.resize(1);
  return config;
}

decoder_layer bench_layer() {
  decoder_layer layer;
  std::vector<float> const ones(static_cast<std::size_t>(hidden), 1.0F);
  layer.attention = attention_weights{ones, random_bfloat16(heads * head_dim, hidden, 1),
                                      random_bfloat16(key_value_heads * head_dim, hidden, 2),
                                      random_bfloat16(key_value_heads * head_dim, hidden, 3),
                                      random_bfloat16(hidden, heads * head_dim, 4)};
  layer.feed_forward_norm = ones;
  moe_weights moe;
  moe.router = random_bfloat16(experts, hidden, 5);
  moe.rule.top_k = top_k;
  for (std::uint64_t e = 0; e < static_cast<std::uint64_t>(experts); ++e)
    moe.experts.push_back({{random_bfloat16(intermediate, hidden, 10 + 3 * e),
                            random_bfloat16(intermediate, hidden, 11 + 3 * e),
                            random_bfloat16(hidden, intermediate, 12 + 3 * e)},
                           {}});
  layer.moe = std::move(moe);
  return layer;
}

void prefill_layer(benchmark::State& state) {
  thread_pool pool(state.range(0));
  eigen_backend const backend(pool);
  model_config const config = bench_config();
  decoder_layer const layer = bench_layer();
  forward_workspace work;
  tensor<float, 2> start(tokens, hidden), X(tokens, hidden);
  for (index_t i = 0; i < tokens * hidden; ++i)
    start.view().data[i] = static_cast<float>(normal_at(1, 99, static_cast<std::uint64_t>(i)));
  for (auto _ : state) {
    detail::copy_rows(start.view(), X.view());
    forward_layer(backend, config, layer, 0, X.view(), work);
    benchmark::DoNotOptimize(X.view().data);
  }
  state.counters["product_flops"] =
      benchmark::Counter(product_operations, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["tokens"] = benchmark::Counter(tokens, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(prefill_layer)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

using row_major = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Y = X Wᵀ with the rows of X shared out over the threads, each one Eigen product.
void eigen_products(benchmark::State& state) {
  auto const threads = static_cast<index_t>(state.range(0));
  thread_pool pool(threads);
  struct shape {
    index_t rows, out, in, times;
  };
  constexpr index_t rows_an_expert = tokens * top_k / experts;
  shape const shapes[] = {{tokens, heads * head_dim, hidden, 2},
                          {tokens, key_value_heads * head_dim, hidden, 2},
                          {tokens, experts, hidden, 1},
                          {rows_an_expert, intermediate, hidden, 2 * experts},
                          {rows_an_expert, hidden, intermediate, experts}};
  std::vector<row_major> inputs, weights, outputs;
  for (shape const& each : shapes) {
    inputs.push_back(row_major::Random(each.rows, each.in));
    weights.push_back(row_major::Random(each.out, each.in));
    outputs.push_back(row_major::Zero(each.rows, each.out));
  }
  for (auto _ : state)
    for (std::size_t s = 0; s < inputs.size(); ++s)
      for (index_t repeat = 0; repeat < shapes[s].times; ++repeat) {
        index_t const part = ceil_div(shapes[s].rows, threads);
        pool.run(threads, [&](index_t piece) {
          index_t const first = piece * part, count = std::min(part, shapes[s].rows - first);
          outputs[s].middleRows(first, count).noalias() =
              inputs[s].middleRows(first, count) * weights[s].transpose();
        });
        benchmark::DoNotOptimize(outputs[s].data());
      }
  state.counters["product_flops"] =
      benchmark::Counter(product_operations, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(eigen_products)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
