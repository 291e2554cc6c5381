// How much of the rate of plain pread is left when every tensor is read through the reader, both into a reused 8 MiB
// buffer and from page cache. The two are interleaved pass by pass, so that other load on the machine hits both; the
// counter `share_of_pread` is the ratio of the medians.
#include <slimtrim/io/output_file.hpp>
#include <slimtrim/io/safetensors.hpp>

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace {

using slimtrim::index_t;
constexpr std::size_t buffer_bytes = std::size_t{8} << 20;

/// A file of `count` BF16 tensors of `elements` elements, removed at the end.
class sample_file {
 public:
  sample_file(index_t count, index_t elements)
      : path_(std::filesystem::temp_directory_path() / ("slimtrim_reader_bench_" + std::to_string(::getpid()))) {
    std::vector<slimtrim::tensor_description> plan;
    for (index_t i = 0; i < count; ++i)
      plan.push_back({.name = "model.layers." + std::to_string(i) + ".weight",
                      .type = slimtrim::dtype::bfloat16,
                      .shape = {elements}});
    slimtrim::safetensors_writer writer(slimtrim::output_file::create(path_), slimtrim::plan_safetensors(plan));
    std::vector<std::byte> data(static_cast<std::size_t>(elements) * 2);
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 2654435761u >> 13);
    for (auto const& tensor : plan) writer.write(tensor.name, data);
    writer.finish();
  }
  sample_file(sample_file const&) = delete;
  sample_file& operator=(sample_file const&) = delete;
  ~sample_file() { std::filesystem::remove(path_); }
  [[nodiscard]] std::filesystem::path const& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

void read_plainly(std::filesystem::path const& path, std::vector<std::byte>& buffer) {
  slimtrim::file_descriptor const file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  for (::off_t at = 0;;) {
    ::ssize_t const got = ::pread(file.get(), buffer.data(), buffer.size(), at);
    if (got <= 0) break;
    at += got;
    benchmark::DoNotOptimize(buffer.data());
    benchmark::ClobberMemory();
  }
}

/// Opening and checking the header are part of the work.
void read_through_reader(std::filesystem::path const& path, std::vector<std::byte>& buffer) {
  slimtrim::safetensors_reader const reader(path);
  for (auto const& tensor : reader.tensors()) {
    for (std::uint64_t at = 0; at < tensor.bytes;) {
      auto const part = std::span(buffer).first(
          static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), tensor.bytes - at)));
      reader.read(tensor, at, part);
      at += part.size();
      benchmark::DoNotOptimize(buffer.data());
      benchmark::ClobberMemory();
    }
  }
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  auto const middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void safetensors_read(benchmark::State& state) {
  sample_file const file(state.range(0), state.range(1));
  std::vector<std::byte> buffer(buffer_bytes);
  read_plainly(file.path(), buffer);
  std::vector<double> plain, reader;
  for (auto _ : state) {
    auto begin = std::chrono::steady_clock::now();
    read_plainly(file.path(), buffer);
    plain.push_back(seconds_since(begin));
    begin = std::chrono::steady_clock::now();
    read_through_reader(file.path(), buffer);
    reader.push_back(seconds_since(begin));
    state.SetIterationTime(reader.back());
  }
  auto const bytes = static_cast<double>(std::filesystem::file_size(file.path()));
  state.counters["share_of_pread"] = median(plain) / median(reader);
  state.counters["reader_GB_per_s"] = bytes / median(reader) / 1e9;
  state.counters["pread_GB_per_s"] = bytes / median(plain) / 1e9;
}

}  // namespace

// 16 large tensors (Mixtral's experts have 117 MB in BF16), then 3 MiB ones (fine-grained experts), then tiny ones.
BENCHMARK(safetensors_read)
    ->ArgNames({"tensors", "elements"})
    ->Args({16, 16 << 20})
    ->Args({160, 3 << 19})
    ->Args({4096, 1 << 15})
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

BENCHMARK_MAIN();
