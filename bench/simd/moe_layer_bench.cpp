// 8 tokens through a MoE layer of 4-bit experts: one token after another, the generic layer (grouped by expert), the fused
// layer.
#include "support.hpp"

#include <slimtrim/model/moe.hpp>

#include <memory>

using namespace simd_bench;

namespace {

void moe_ladder(benchmark::State& state) {
  index_t const threads = state.range(0), tokens = state.range(1), hidden = 1024, width = 3584, experts = 8;
  thread_pool pool(threads);
  simd_backend const exact(pool), fast(pool, {.activations = activation_kind::int8});
  auto const& products = static_cast<simd_product_backend const&>(exact);
  auto const& rounded_products = static_cast<simd_product_backend const&>(fast);
  std::vector<std::unique_ptr<codes>> memory;
  auto matrix = [&](index_t rows, index_t columns) {
    memory.push_back(std::make_unique<codes>(rows, columns, 4, 128, memory.size()));
    return exact.prepare({memory.back()->view, {}});
  };
  moe_weights weights;
  weights.router = own_weight(random_dense<float>(experts, hidden, 1));
  weights.rule.top_k = 2;
  for (index_t e = 0; e < experts; ++e)
    weights.experts.push_back({{matrix(width, hidden), matrix(width, hidden), matrix(hidden, width)}, {}});
  auto const X = random_dense<float>(tokens, hidden, 2);
  tensor<float, 2> Y(tokens, hidden);
  forward_workspace work;
  auto one_by_one = [&](auto const& backend) {
    return [&] {
      for (index_t t = 0; t < tokens; ++t) moe_layer(backend, weights, 0, rows(X.view(), t, 1), rows(Y.view(), t, 1), work);
    };
  };
  auto whole = [&](auto const& backend) { return [&] { moe_layer(backend, weights, 0, X.view(), Y.view(), work); }; };
  std::vector<contender> runs{{"W4A16 token by token", one_by_one(products)},
                              {"W4A16 generic", whole(products)},
                              {"W4A16 fused", whole(exact)},
                              {"W4A8 token by token", one_by_one(rounded_products)},
                              {"W4A8 generic", whole(rounded_products)},
                              {"W4A8 fused", whole(fast)}};
  for (auto _ : state) interleave_runs(runs, 15, threads == 1);
  for (std::size_t i = 0; i < runs.size(); ++i)
    state.counters[runs[i].name + ": x"] = speed_up(runs[i], runs[i / 3 * 3]);
}
BENCHMARK(moe_ladder)->Args({1, 1})->Args({1, 8})->Args({2, 8})->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
