// What the statistics of one layer cost next to the expert products of that layer, which a calibration pass does
// anyway.
#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/router/dispatch.hpp>
#include <slimtrim/router/route.hpp>
#include <slimtrim/statistics/layer_statistics.hpp>
#include <slimtrim/tensor/buffer.hpp>

#include <benchmark/benchmark.h>

#include <vector>

namespace {

using namespace slimtrim;

constexpr index_t tokens = 512, hidden = 1024, width = 3584, experts = 8, slots = 2;

tensor<float, 2> values(index_t n, index_t m, std::uint64_t stream) {
  tensor<float, 2> x(n, m);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < m; ++j)
      x(i, j) = static_cast<float>(uniform_at(1, stream, static_cast<std::uint64_t>(i * m + j))) - 0.5F;
  return x;
}

void statistics_of_a_window(benchmark::State& state) {
  bool const everything = state.range(0) != 0;
  auto const logits = values(tokens, experts, 0), x = values(tokens, hidden, 1), y = values(tokens, hidden, 2);
  auto const f = values(tokens * slots, hidden, 3), h = values(tokens * slots, width, 4);
  tensor<float, 2> probabilities(tokens, experts), weights(tokens, slots);
  tensor<std::int32_t, 2> indices(tokens, slots);
  eigen_backend const backend;
  route(backend, logits.view(), {}, {}, indices.view(), weights.view(), probabilities.view());
  routing_view const routing{probabilities.view(), indices.view(), weights.view()};
  auto const groups = group_by_expert(indices.view(), experts);
  std::vector<float> const gates(static_cast<std::size_t>(tokens * slots), 0.5F);
  layer_statistics layer(
      {.experts = experts, .hidden = hidden, .intermediate = width, .outputs = everything, .neurons = everything});
  for (auto _ : state) {
    layer.router.add(routing);
    layer.similarity.add(backend, {x.view(), x.view(), y.view(), y.view(), y.view()});
    layer.norms.begin_window(tokens, slots);
    for (index_t e = 0; e < experts; ++e) {
      index_t const first = groups.offsets[static_cast<std::size_t>(e)], n = groups.count(e);
      auto const outputs = rows(f.view(), first, n);
      layer.norms.add_outputs(backend, e, groups.tokens_of(e), groups.slots_of(e), outputs);
      if (!everything) continue;
      layer.outputs->add(backend, e, outputs);
      layer.neurons->add(backend, e, rows(h.view(), first, n), std::span(gates).first(static_cast<std::size_t>(n)));
    }
    layer.norms.add(routing, layer.similarity.change());
    layer.commit_window();
  }
}
BENCHMARK(statistics_of_a_window)->ArgName("outputs_and_neurons")->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

void expert_products_of_a_window(benchmark::State& state) {
  auto const x = values(tokens * slots / experts, hidden, 1), w = values(width, hidden, 2);
  tensor<float, 2> out(tokens * slots / experts, width);
  for (auto _ : state)
    for (index_t product = 0; product < 3 * experts; ++product)
      eigen_backend{}.gemm(1.0F, as_const(x.view()), transposed(as_const(w.view())), 0.0F, out.view());
}
BENCHMARK(expert_products_of_a_window)->Unit(benchmark::kMillisecond);

}  // namespace
