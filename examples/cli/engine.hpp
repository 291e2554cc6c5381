// What runs a model, compiled once for all commands: the backend's kernels are instantiated here and nowhere else.
#pragma once

#include "command.hpp"
#include "device.hpp"

#include <slimtrim/model/generate.hpp>
#include <slimtrim/pipeline/compress.hpp>
#include <slimtrim/pipeline/decide.hpp>
#include <slimtrim/pipeline/search.hpp>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace cli {

/// `--device` and `--activations`.
struct device_flags {
  std::string device = "cpu";
  std::string activations = "float";
  void declare(option_set& options);
};

/// `--memory`: what a pass over a text may take for rows and sums.
struct memory_flags {
  std::uint64_t bytes = 0;  ///< 0: 2 GiB on the host; 16 GiB on a device, or a quarter of its memory where that is less
  void declare(option_set& options);
};

/// `--kv-cache`.
struct cache_flags {
  std::string precision = "float";
  void declare(option_set& options);
  /// Throws `usage_error` for a name that is none.
  [[nodiscard]] slimtrim::kv_precision chosen() const;
};

/// `--data`, `--tokens` and `--seq`.
struct data_flags {
  std::string data;
  std::optional<index_t> tokens;    ///< not given: every whole window
  std::optional<index_t> sequence;  ///< not given: 2048, or the model's positions when those are fewer
  void declare(option_set& options, bool required, std::string const& what);
};

class engine {
 public:
  /// Throws `usage_error` for a device that this build does not have, `system_failure` for one that is not there.
  engine(session const& at, device_flags const& flags, memory_flags const& memory = {});
  engine(engine const&) = delete;
  engine& operator=(engine const&) = delete;
  ~engine();

  [[nodiscard]] slimtrim::token_windows windows(slimtrim::opened_model const& model, data_flags const& flags) const;
  [[nodiscard]] slimtrim::evaluation evaluate(slimtrim::opened_model const& model, slimtrim::opened_model const* base,
                                              slimtrim::token_windows const& windows) const;
  [[nodiscard]] slimtrim::model_statistics calibrate(slimtrim::opened_model const& model,
                                                     slimtrim::token_windows const& windows,
                                                     slimtrim::statistics_tables const& tables) const;
  [[nodiscard]] slimtrim::plan decide(slimtrim::recipe const& recipe, slimtrim::decide_inputs const& inputs,
                                      slimtrim::decide_options const& options) const;
  [[nodiscard]] slimtrim::search_result search(slimtrim::opened_model const& model, slimtrim::model_statistics const* statistics,
                                               slimtrim::token_windows const& windows,
                                               slimtrim::search_options const& options) const;
  slimtrim::compress_result compress(slimtrim::opened_model const& input, slimtrim::plan const& plan,
                                     std::string const& out, slimtrim::compress_options const& options) const;

  /// Continues `prompt`; `on_token` sees every new token.
  [[nodiscard]] std::vector<std::uint32_t> generate(slimtrim::opened_model const& model,
                                                    std::vector<std::uint32_t> const& prompt,
                                                    slimtrim::generate_options const& options,
                                                    std::function<bool(std::uint32_t)> const& on_token) const;
  /// Times a prefill of `prompt` and `length` greedy tokens after it, `rounds` times after one that is not counted;
  /// `after_round` runs after each.
  [[nodiscard]] std::vector<speed> measure(slimtrim::opened_model const& model, std::vector<std::uint32_t> const& prompt,
                                           index_t length, slimtrim::kv_precision cache, index_t rounds,
                                           std::function<void()> const& after_round) const;
  /// Bytes a second that the device reads from its memory, and the most memory that it had in use; 0 on the host.
  [[nodiscard]] double device_bandwidth() const;
  [[nodiscard]] std::uint64_t peak_device_bytes() const;

 private:
  struct state;
  /// Of `memory_`, for the streams of windows that go through the layers together; all of it is for the sums.
  [[nodiscard]] std::uint64_t activation_bytes() const { return memory_ / 4; }

  session const& at_;
  std::uint64_t memory_;
  std::unique_ptr<state> state_;
};

/// Most memory that this process has had resident, in bytes.
[[nodiscard]] std::uint64_t peak_resident_bytes();

}  // namespace cli
