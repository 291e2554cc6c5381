// A device other than the processor that runs models, as the engine sees it; in builds without one, `open_cuda_device`
// says so.
#pragma once

#include <slimtrim/core/progress.hpp>
#include <slimtrim/model/accelerator.hpp>
#include <slimtrim/model/generate_options.hpp>
#include <slimtrim/model/weight_source.hpp>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace cli {

/// How fast a model runs.
struct speed {
  double prefill_seconds = 0;
  double decode_seconds = 0;
};

class device {
 public:
  device() = default;
  device(device const&) = delete;
  device& operator=(device const&) = delete;
  virtual ~device() = default;

  /// What takes layers over from the pipeline, which stays on the host.
  [[nodiscard]] virtual slimtrim::accelerator& accelerator() = 0;

  /// A model that stays on the device until the next one is loaded.
  virtual void load(slimtrim::model_config const& config, slimtrim::weight_source const& weights,
                    slimtrim::progress_callback const& progress) = 0;
  [[nodiscard]] virtual std::vector<std::vector<std::uint32_t>> generate(
      std::span<std::vector<std::uint32_t> const> prompts, slimtrim::generate_options const& options,
      slimtrim::token_callback const& on_token) = 0;
  /// Times one prefill of `prompt` with the token that it yields, and `length` greedy tokens after it.
  [[nodiscard]] virtual speed measure(std::vector<std::uint32_t> const& prompt, slimtrim::index_t length) = 0;

  /// All the memory that the device has, in bytes.
  [[nodiscard]] virtual std::uint64_t memory_bytes() const = 0;
  /// Bytes a second that the device reads from its memory, measured.
  [[nodiscard]] virtual double bandwidth() = 0;
  /// Most device memory in use since the device was opened, in bytes, as seen after each of the members above.
  [[nodiscard]] virtual std::uint64_t peak_bytes() const = 0;
};

/// The current CUDA device. Throws `usage_error` in a build without CUDA, `system_failure` where there is no device,
/// none that can run this program, or no memory.
[[nodiscard]] std::unique_ptr<device> open_cuda_device();

}  // namespace cli
