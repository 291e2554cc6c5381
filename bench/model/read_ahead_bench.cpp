// Streaming a model that is not in memory, layer by layer, with and without reading the next layer ahead. What is done
// with a layer stands for itself: its bytes are summed, then nothing happens for `work_ms`, as on a host whose device
// computes. Passes are interleaved; the file leaves the page cache before each. `of_disk`: the share of the rate at
// which pread with large buffers brings the cold files in.
#include <slimtrim/io/output_file.hpp>
#include <slimtrim/model/read_ahead.hpp>
#include <slimtrim/pipeline/open_model.hpp>
#include <slimtrim/pipeline/synth.hpp>

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace slimtrim;
using seconds = std::chrono::duration<double>;

// About 1.6 GB of a Mixtral's shapes at half the width, removed at the end.
class cold_model {
 public:
  cold_model() : folder_(std::filesystem::temp_directory_path() / ("slimtrim_read_ahead_bench_" + std::to_string(::getpid()))) {
    synth_options options;
    options.shape.hidden = 2048;
    options.shape.intermediate = 3584;
    options.shape.heads = 16;
    options.shape.key_value_heads = 4;
    static_cast<void>(synthesize(folder_, options));
  }
  cold_model(cold_model const&) = delete;
  cold_model& operator=(cold_model const&) = delete;
  ~cold_model() { std::filesystem::remove_all(folder_); }

  void cool() const {
    for (auto const& entry : std::filesystem::directory_iterator(folder_)) {
      file_descriptor const file(::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC));
      static_cast<void>(::fsync(file.get()));
      static_cast<void>(::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED));
    }
  }
  [[nodiscard]] double bytes() const {
    double sum = 0;
    for (auto const& entry : std::filesystem::directory_iterator(folder_)) sum += static_cast<double>(entry.file_size());
    return sum;
  }
  [[nodiscard]] std::filesystem::path const& folder() const { return folder_; }

 private:
  std::filesystem::path folder_;
};

double pread_time(cold_model const& model, std::vector<std::byte>& buffer) {
  model.cool();
  auto const begin = std::chrono::steady_clock::now();
  for (auto const& entry : std::filesystem::directory_iterator(model.folder())) {
    file_descriptor const file(::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC));
    for (::off_t at = 0;;) {
      ::ssize_t const got = ::pread(file.get(), buffer.data(), buffer.size(), at);
      if (got <= 0) break;
      at += got;
      benchmark::DoNotOptimize(buffer.data());
    }
  }
  return seconds(std::chrono::steady_clock::now() - begin).count();
}

double stream_time(cold_model const& cold, bool read_next, std::chrono::milliseconds work) {
  cold.cool();
  opened_model const model = open_model(cold.folder());
  auto const begin = std::chrono::steady_clock::now();
  std::unique_ptr<read_ahead> ahead;
  if (read_next) ahead = std::make_unique<read_ahead>(*model.weights);
  for (index_t i = 0; i < model.config.layer_count(); ++i) {
    if (ahead) ahead->begin_layer(model.config, i + 1);
    for_each_layer_module(model.config, i, [&](module_id id) {
      if (module_shape(model.config, id).size() != 2) return;
      weight const w = model.weights->matrix(id);
      auto const& view = std::get<matrix_view<bfloat16 const>>(w.view);
      auto const* const words = reinterpret_cast<std::uint16_t const*>(view.data);
      std::uint32_t sum = 0;
      for (index_t k = 0; k < view.size(); ++k) sum += words[k];
      benchmark::DoNotOptimize(sum);
    });
    std::this_thread::sleep_for(work);
    model.weights->release(i);
  }
  return seconds(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  auto const middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void stream_cold_model(benchmark::State& state) {
  static cold_model const model;
  auto const work = std::chrono::milliseconds(state.range(0));
  std::vector<std::byte> buffer(std::size_t{8} << 20);
  std::vector<double> disk, alone, ahead;
  for (auto _ : state) {
    disk.push_back(pread_time(model, buffer));
    alone.push_back(stream_time(model, false, work));
    ahead.push_back(stream_time(model, true, work));
    state.SetIterationTime(ahead.back());
  }
  state.counters["disk_GB_per_s"] = model.bytes() / median(disk) / 1e9;
  state.counters["GB_per_s"] = model.bytes() / median(ahead) / 1e9;
  state.counters["of_disk"] = median(disk) / median(ahead);
  state.counters["x_of_alone"] = median(alone) / median(ahead);
}

}  // namespace

BENCHMARK(stream_cold_model)->ArgName("work_ms")->Arg(0)->Arg(100)->Arg(300)->Iterations(5)->UseManualTime()->Unit(benchmark::kMillisecond);

BENCHMARK_MAIN();
