// bench_cuda [results.json [case...]]: all cases or the named ones (products, moe_layer, rows), ceilings always first.
#include "support.cuh"

#include <cstdlib>
#include <cstring>
#include <exception>

namespace {

void write_json(cuda_bench::session const& s, char const* device, char const* path) {
  std::FILE* const file = std::fopen(path, "w");
  if (file == nullptr) throw slimtrim::system_failure(std::string(path) + ": cannot be written");
  std::fprintf(file, "{\"device\": \"%s\", \"read_bandwidth\": %.6g, \"cublas_rate\": %.6g, \"results\": [\n", device, s.read_bandwidth,
               s.cublas_rate);
  for (std::size_t i = 0; i < s.results.size(); ++i) {
    auto const& r = s.results[i];
    std::fprintf(file, "  {\"name\": \"%s\", \"microseconds\": %.4f", r.name.c_str(), r.microseconds);
    for (auto const& [what, value] : r.figures) std::fprintf(file, ", \"%s\": %.6g", what.c_str(), value);
    std::fprintf(file, "}%s\n", i + 1 < s.results.size() ? "," : "");
  }
  std::fprintf(file, "]}\n");
  std::fclose(file);
}

}  // namespace

int main(int argc, char** argv) {
  try {
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
    cuda_bench::session s(stream);
    auto const wanted = [&](char const* name) {
      for (int i = 2; i < argc; ++i)
        if (std::strcmp(argv[i], name) == 0) return true;
      return argc <= 2;
    };
    cuda_bench::bench_ceilings(s);
    if (wanted("rows")) cuda_bench::bench_rows(s);
    if (wanted("products")) cuda_bench::bench_products(s);
    if (wanted("moe_layer")) cuda_bench::bench_moe_layer(s);
    if (argc > 1) write_json(s, properties.name, argv[1]);
  } catch (std::exception const& wrong) {
    std::fprintf(stderr, "bench_cuda: %s\n", wrong.what());
    return 1;
  }
  return 0;
}
