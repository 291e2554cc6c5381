// paper_table list | run ROW OUT | table OUT: the rows of the paper's Table 3, each a command of its own.
#include "measure.cuh"
#include "table.hpp"

#include <cstring>
#include <exception>

namespace {

using namespace paper_table;

/// Bytes of weights that a token reads at one text: what it meets of the experts, everything else once.
double active_bytes(table_row const& row) {
  model_config config = shape_of(row);
  double sum = 2.0 * static_cast<double>(config.vocabulary * config.hidden);
  for (index_t i = 0; i < config.layer_count(); ++i) {
    auto& layer = config.layers[static_cast<std::size_t>(i)];
    if (layer.experts > 0) layer.experts = layer.top_k;
    sum += layer_bytes(config, i, row.kind == row_kind::fused_4bit);
  }
  return sum;
}

int run(table_row const& row, std::string const& out) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device\n");
    return 77;
  }
  if (row.kind == row_kind::transformers) {
    std::printf("%s: measured by transformers_row.py\n", row.name.c_str());
    return 2;
  }
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, 0), "device");
  cudaStream_t stream{};
  cuda::check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  cuda_bench::session s(stream);
  row_file seen;
  seen.say("device", properties.name);
  seen.set("read_bandwidth", cuda::read_bandwidth(s.on()));
  seen.set("active_bytes", active_bytes(row));
  row.kind == row_kind::eager_bf16 ? measure_eager(s, row, seen) : measure_fused(s, row, seen);
  s.backend.synchronise();
  seen.save(out + "/" + row.name + ".row");
  std::printf("%s: %s\n", row.name.c_str(), seen.json().c_str());
  return 0;
}

}  // namespace

int main(int count, char** words) {
  try {
    std::string const what = count > 1 ? words[1] : "";
    if (what == "list") {
      for (table_row const& row : all_rows()) std::printf("%s\n", row.name.c_str());
      return 0;
    }
    if (what == "table" && count == 3) {
      std::printf("%s", write_table(words[2]).c_str());
      return 0;
    }
    if (what == "run" && count == 4)
      for (table_row const& row : all_rows())
        if (row.name == words[2]) return run(row, words[3]);
    std::fprintf(stderr, "usage: paper_table list | run ROW OUT | table OUT\n");
    return 2;
  } catch (std::exception const& wrong) {
    std::fprintf(stderr, "paper_table: %s\n", wrong.what());
    return 1;
  }
}
