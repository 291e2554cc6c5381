// The CUDA device of the program: a module that is loaded when it is asked for. nvcc compiles it, and device_slim.cu.

#include "device.hpp"
#include "device_slim.hpp"

#include <slimtrim/cuda/bandwidth.cuh>
#include <slimtrim/cuda/model/accelerator.cuh>
#include <slimtrim/cuda/model/generate.cuh>

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>

namespace cli {

namespace {

using element = slimtrim::bfloat16;
namespace cuda = slimtrim::cuda;

/// A stream that lives as long as its owner.
class own_stream {
 public:
  own_stream() { cuda::check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "--device cuda"); }
  own_stream(own_stream const&) = delete;
  own_stream& operator=(own_stream const&) = delete;
  ~own_stream() { static_cast<void>(cudaStreamDestroy(stream_)); }
  [[nodiscard]] cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_{};
};

class cuda_device final : public device {
 public:
  cuda_device() : free_at_start_(cuda::free_device_bytes()), backend_(stream_.get()), accelerator_(stream_.get(), slimming_on_device()) {}

  slimtrim::accelerator& accelerator() override { return accelerator_; }

  void load(slimtrim::model_config const& config, slimtrim::weight_source const& weights,
            slimtrim::progress_callback const& progress) override {
    model_.reset();
    model_.emplace(backend_.on(), config, weights, progress);
    note_memory();
  }
  std::vector<std::vector<std::uint32_t>> generate(std::span<std::vector<std::uint32_t> const> prompts,
                                                   slimtrim::generate_options const& options,
                                                   slimtrim::token_callback const& on_token) override {
    auto made = cuda::generate<element>(backend_.on(), *model_, prompts, options, on_token);
    note_memory();
    return made;
  }
  speed measure(std::vector<std::uint32_t> const& prompt, slimtrim::index_t length) override {
    using clock = std::chrono::steady_clock;
    cuda::device_generation<element> text(backend_.on(), *model_, 1,
                                          static_cast<slimtrim::index_t>(prompt.size()) + length);
    speed result;
    for (int round = 0; round < 2; ++round) {
      auto const begin = clock::now();
      text.prefill(0, prompt);
      text.draw();
      backend_.synchronise();
      auto const first = clock::now();
      for (slimtrim::index_t i = 0; i < length; ++i) {
        text.step();
        text.draw();
      }
      backend_.synchronise();
      result.prefill_seconds = std::chrono::duration<double>(first - begin).count();
      result.decode_seconds = std::chrono::duration<double>(clock::now() - first).count();
    }
    note_memory();
    return result;
  }
  std::uint64_t memory_bytes() const override { return static_cast<std::uint64_t>(cuda::device_bytes()); }
  double bandwidth() override { return cuda::read_bandwidth(backend_.on()); }
  std::uint64_t peak_bytes() const override {
    note_memory();
    return static_cast<std::uint64_t>(peak_);
  }

 private:
  void note_memory() const { peak_ = std::max(peak_, free_at_start_ - cuda::free_device_bytes()); }

  own_stream stream_;
  slimtrim::index_t free_at_start_;
  slimtrim::cuda_backend backend_;
  cuda::device_accelerator<element> accelerator_;
  std::optional<cuda::device_model<element>> model_;
  mutable slimtrim::index_t peak_ = 0;
};

}  // namespace

extern "C" device* slimtrim_open_cuda_device_4() {
  int count = 0;
  cudaError_t const status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0)
    throw slimtrim::system_failure(std::string("--device cuda: no CUDA device: ") +
                                   (status != cudaSuccess ? cudaGetErrorString(status) : "none is installed"));
  cudaFuncAttributes attributes{};
  if (cudaFuncGetAttributes(&attributes, cuda::detail::count_step) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    int number = 0;
    cudaDeviceProp properties{};
    cuda::check(cudaGetDevice(&number), "--device cuda");
    cuda::check(cudaGetDeviceProperties(&properties, number), "--device cuda");
    throw slimtrim::system_failure("--device cuda: " + std::string(properties.name) + " has compute capability " +
                                   std::to_string(properties.major) + "." + std::to_string(properties.minor) +
                                   ", for which this program was not compiled (SLIMTRIM_CUDA_ARCHITECTURES)");
  }
  return new cuda_device;
}

}  // namespace cli
