// What calibration costs beside the plain forward pass over the same tokens: 8192 tokens through a synthetic Mixtral (1
// layer, hidden 1024, intermediate 3584, 8 experts, top-2). Both run in turn inside each iteration, so that the ratio
// is of one moment.
#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/pipeline/calibrate.hpp>
#include <slimtrim/pipeline/open_model.hpp>
#include <slimtrim/pipeline/synth.hpp>
#include <slimtrim/simd/backend.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

using namespace slimtrim;

class synthetic_model {
 public:
  synthetic_model() : folder_(std::filesystem::temp_directory_path() / ("slimtrim-bench-" + std::to_string(getpid()))) {
    synth_options options;
    options.shape = {.family = "mixtral",
                     .layers = 1,
                     .hidden = 1024,
                     .intermediate = 3584,
                     .experts = 8,
                     .top_k = 2,
                     .heads = 16,
                     .key_value_heads = 4,
                     .vocabulary = 2048};
    static_cast<void>(synthesize(folder_, options));
    model_ = open_model(folder_);
  }
  synthetic_model(synthetic_model const&) = delete;
  synthetic_model& operator=(synthetic_model const&) = delete;
  ~synthetic_model() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  [[nodiscard]] opened_model const& operator*() const { return model_; }

 private:
  std::filesystem::path folder_;
  opened_model model_;
};

synthetic_model const& shared_model() {
  static synthetic_model const model;
  return model;
}

token_windows random_windows(index_t count, index_t sequence) {
  token_windows windows;
  windows.sequence = sequence;
  for (index_t i = 0; i < count * sequence; ++i)
    windows.tokens.push_back(static_cast<std::uint32_t>(2048 * uniform_at(1, 2, static_cast<std::uint64_t>(i))));
  return windows;
}

template <host_backend B>
void plain_pass(B const& backend, opened_model const& model, token_windows const& windows) {
  model_ends const ends = load_ends(model.config, *model.weights);
  workspace_pool workspaces;
  window_streams streams(ends, windows, 0, windows.count());
  for (index_t i = 0; i < model.config.layer_count(); ++i)
    streams.run_layer(backend, model.config, load_layer(model.config, *model.weights, i), i, workspaces);
  benchmark::DoNotOptimize(streams.all().data);
}

double seconds_of(auto&& work) {
  auto const begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// range(0): threads; range(1): tokens a window; range(2): whether the tables of outputs and neurons are filled.
template <class Backend>
void calibrate_beside_forward(benchmark::State& state) {
  opened_model const& model = *shared_model();
  thread_pool pool(state.range(0));
  Backend const backend(pool);
  token_windows const windows = random_windows(8192 / state.range(1), state.range(1));
  calibrate_options options;
  options.tables.outputs = options.tables.neurons = state.range(2) != 0;
  std::vector<double> ratios;
  double forward = 0, calibration = 0;
  for (auto _ : state) {
    double const plain = seconds_of([&] { plain_pass(backend, model, windows); });
    double const observed =
        seconds_of([&] { benchmark::DoNotOptimize(calibrate(backend, model, windows, options).tokens()); });
    state.SetIterationTime(observed);
    forward += plain;
    calibration += observed;
    ratios.push_back(observed / plain);
  }
  std::sort(ratios.begin(), ratios.end());
  state.counters["forward_ms"] = 1e3 * forward / static_cast<double>(ratios.size());
  state.counters["calibrate_ms"] = 1e3 * calibration / static_cast<double>(ratios.size());
  state.counters["ratio"] = ratios[ratios.size() / 2];
}
BENCHMARK(calibrate_beside_forward<eigen_backend>)
    ->ArgNames({"threads", "window", "tables"})
    ->Args({2, 2048, 1})
    ->Iterations(3)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(calibrate_beside_forward<simd_backend>)
    ->ArgNames({"threads", "window", "tables"})
    ->Args({2, 2048, 1})
    ->Args({2, 256, 1})
    ->Iterations(3)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
