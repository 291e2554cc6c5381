// bench_cuda <results.json> <commit> <case>...: ceilings first, then the named cases (rows products moe_layer gptq awq;
// none: all). Writes the figures as JSON and, beside it, the verdicts as rows of a Markdown table.
#include "support.cuh"

#include <cstdlib>
#include <cstring>
#include <exception>

namespace {

using cuda_bench::session;

std::FILE* open_file(std::string const& path) {
  std::FILE* const file = std::fopen(path.c_str(), "w");
  if (file == nullptr) throw slimtrim::system_failure(path + ": cannot be written");
  return file;
}

void write_json(session const& s, char const* device, char const* commit, std::string const& path) {
  std::FILE* const file = open_file(path);
  std::fprintf(
      file,
      "{\"device\": \"%s\", \"commit\": \"%s\", \"read_bandwidth\": %.6g, \"cublas_rate\": %.6g, \"results\": [\n",
      device, commit, s.read_bandwidth, s.cublas_rate);
  for (std::size_t i = 0; i < s.results.size(); ++i) {
    auto const& r = s.results[i];
    std::fprintf(file, "  {\"name\": \"%s\", \"microseconds\": %.4f", r.name.c_str(), r.microseconds);
    for (auto const& [what, value] : r.figures) std::fprintf(file, ", \"%s\": %.6g", what.c_str(), value);
    std::fprintf(file, "}%s\n", i + 1 < s.results.size() ? "," : "");
  }
  std::fprintf(file, "], \"verdicts\": [\n");
  for (std::size_t i = 0; i < s.verdicts.size(); ++i) {
    auto const& v = s.verdicts[i];
    std::fprintf(file, "  {\"what\": \"%s\", \"value\": %.6g, \"must\": %.6g, \"aim\": %.6g, \"at_most\": %s}%s\n",
                 v.what.c_str(), v.value, v.must, v.aim, v.at_most ? "true" : "false",
                 i + 1 < s.verdicts.size() ? "," : "");
  }
  std::fprintf(file, "]}\n");
  std::fclose(file);
}

void write_table(session const& s, std::string const& path) {
  std::FILE* const file = open_file(path);
  for (auto const& v : s.verdicts) {
    auto const reached = [&](double line) { return v.at_most ? v.value <= line : v.value >= line; };
    std::fprintf(file, "| %s | %.3g | %.3g | %.3g | %s |\n", v.what.c_str(), v.value, v.must, v.aim,
                 reached(v.aim) ? "aim" : (reached(v.must) ? "must" : "**missed**"));
  }
  std::fclose(file);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 3) {
      std::fprintf(stderr, "usage: bench_cuda <results.json> <commit> [rows|products|moe_layer|gptq|awq]...\n");
      return 2;
    }
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
      std::printf("skipped: no CUDA device\n");
      return 77;
    }
    cudaDeviceProp properties{};
    slimtrim::cuda::check(cudaGetDeviceProperties(&properties, 0), "device");
    std::printf("%s, %d multiprocessors, %.0f MB of L2\n", properties.name, properties.multiProcessorCount, properties.l2CacheSize / 1048576.0);
    cudaStream_t stream{};
    slimtrim::cuda::check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
    session s(stream);
    struct named {
      char const* name;
      void (*run)(session&);
    };
    cuda_bench::bench_ceilings(s);
    for (named const& one : {named{"rows", cuda_bench::bench_rows}, named{"products", cuda_bench::bench_products},
                             named{"moe_layer", cuda_bench::bench_moe_layer}, named{"gptq", cuda_bench::bench_gptq},
                             named{"awq", cuda_bench::bench_awq}}) {
      bool wanted = argc == 3;
      for (int i = 3; i < argc; ++i) wanted = wanted || std::strcmp(argv[i], one.name) == 0;
      if (wanted) one.run(s);
    }
    std::string const path = argv[1];
    write_json(s, properties.name, argv[2], path);
    write_table(s, path + ".md");
  } catch (std::exception const& wrong) {
    std::fprintf(stderr, "bench_cuda: %s\n", wrong.what());
    return 1;
  }
  return 0;
}
