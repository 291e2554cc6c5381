// Decoding: one token times weights that do not fit any cache. Reference -> generic -> kernels, the read bandwidth of
// the same run beside them.
#include "support.hpp"

using namespace simd_bench;

namespace {

void gemv_ladder(benchmark::State& state) {
  index_t const threads = state.range(0), tokens = state.range(1);
  constexpr int rounds = 9;
  thread_pool pool(threads);
  simd_backend const exact(pool), fast(pool, {.activations = activation_kind::int8});
  index_t const in = 4096, out = 4096;
  int const copies = 6;  // 50 MB of 4-bit codes: beyond the last-level cache
  std::vector<codes> packed;
  std::vector<weight> four, eight, brain, dense;
  std::vector<tensor<bfloat16, 2>> brain_rows;
  std::vector<tensor<float, 2>> dense_rows;
  for (int c = 0; c < copies; ++c) {
    packed.emplace_back(out, in, 4, 128, static_cast<std::uint64_t>(c));
    four.push_back(exact.prepare({packed.back().view, {}}));
    codes const bytes(out, in, 8, 128, static_cast<std::uint64_t>(c));
    eight.push_back(exact.prepare({bytes.view, {}}));
    brain_rows.push_back(random_dense<bfloat16>(out, in, static_cast<std::uint64_t>(c)));
    brain.push_back(exact.prepare({as_const(brain_rows.back().view()), {}}));
    if (c < 3) dense_rows.push_back(random_dense<float>(out, in, static_cast<std::uint64_t>(c)));
  }
  auto const X = random_dense<float>(tokens, in, 99);
  tensor<float, 2> Y(tokens, out);
  read_bandwidth memory;

  auto all = [&](auto const& backend, auto const& weights) {
    return [&] {
      for (int c = 0; c < copies; ++c)
        product(backend, X.view(), weights[static_cast<std::size_t>(c) % weights.size()].view, Y.view());
    };
  };
  auto views = [&](auto const& backend, auto const& weights) {
    return [&] {
      for (int c = 0; c < copies; ++c)
        product(backend, X.view(), weight_view(as_const(weights[static_cast<std::size_t>(c) % weights.size()].view())),
                Y.view());
    };
  };
  auto unprepared = [&](auto const& backend) {
    return [&] {
      for (auto const& each : packed) product(backend, X.view(), weight_view(each.view), Y.view());
    };
  };
  eigen_backend const eigen(pool);
  double const weights = static_cast<double>(in * out) * copies;
  std::vector<contender> runs{{"read 512 MiB", [&] { memory(&pool); }},
                              {"float rows, eigen gemm", views(eigen, dense_rows)},
                              {"float rows", views(exact, dense_rows)},
                              {"bf16 rows", views(exact, brain_rows)},
                              {"bf16 panels", all(exact, brain)},
                              {"W8A16 panels", all(exact, eight)},
                              {"W8A8 panels", all(fast, eight)},
                              {"W4A16 as stored", unprepared(exact)},
                              {"W4A16 panels", all(exact, four)},
                              {"W4A8 panels", all(fast, four)}};
  double const bits[] = {0, 32, 32, 16, 16, 8.25, 8.25, 4.25, 4.25, 4.25};
  for (auto _ : state) interleave_runs(runs, rounds, threads == 1);
  double const ceiling = static_cast<double>(read_bandwidth::bytes) / median(runs[0]);
  state.counters["read GB/s"] = ceiling / 1e9;
  for (std::size_t i = 1; i < runs.size(); ++i) {
    double const rate = weights * bits[i] / 8 / median(runs[i]);
    state.counters[runs[i].name + ": share of read"] = rate / ceiling;
    state.counters[runs[i].name + ": x of bf16 rows"] = speed_up(runs[i], runs[3]);
  }
  benchmark::DoNotOptimize(memory.kept());
}
BENCHMARK(gemv_ladder)->Args({1, 1})->Args({2, 1})->Args({1, 2})->Args({1, 4})->Iterations(1)->Unit(benchmark::kMillisecond);

}  // namespace
