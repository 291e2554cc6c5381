// slimtrim bench: speed and memory of a model on this machine.

#include "command.hpp"
#include "engine.hpp"
#include "table.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/pipeline/inspect.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>

namespace cli {

namespace {

/// Bytes a second that all threads together read from memory: the best of a few passes over a buffer beyond caches.
double memory_bandwidth(session const& at) {
  constexpr index_t piece = index_t{1} << 20;
  std::vector<std::uint64_t> buffer(std::size_t{32} << 20, 1);
  index_t const pieces = static_cast<index_t>(buffer.size()) / piece;
  std::vector<std::uint64_t> sums(static_cast<std::size_t>(pieces));
  double best = 0;
  for (int pass = 0; pass < 5; ++pass) {
    auto const begin = std::chrono::steady_clock::now();
    slimtrim::parallel_for(at.pool, pieces, [&](index_t i) {
      std::uint64_t const* const from = buffer.data() + i * piece;
      std::uint64_t sum[8] = {};
      for (index_t j = 0; j < piece; j += 8)
        for (int lane = 0; lane < 8; ++lane) sum[lane] += from[j + lane];
      sums[static_cast<std::size_t>(i)] = sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
    });
    double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    // The sums are looked at, so that the reading cannot be left out.
    if (std::count(sums.begin(), sums.end(), static_cast<std::uint64_t>(piece)) != pieces) return 0;
    best = std::max(best, static_cast<double>(buffer.size() * sizeof(buffer[0])) / seconds);
  }
  return best;
}

class bench_command final : public command {
 public:
  std::string name() const override { return "bench"; }
  std::string summary() const override { return "Measure speed and memory of a model"; }
  std::string examples() const override {
    return "Random tokens (--seed), one sequence, the second of two runs. bytes_per_token is what decoding one token\n"
           "reads of the weights; bandwidth_share is that rate over the memory bandwidth measured in the same run.\n"
           "Examples:\n"
           "  slimtrim bench examples/models/tiny-mixtral --prefill 128 --decode 64\n"
           "  slimtrim bench mixtral-4bit --prefill 2048 --decode 128 --json";
  }
  void declare(option_set& options) override {
    options.positional("MODEL", model_, "Model folder");
    options.number("--prefill", prefill_, "Tokens of the prompt");
    options.number("--decode", decode_, "Tokens generated after it");
    device_.declare(options);
  }
  void run(session const& at) override {
    if (prefill_ < 1) throw slimtrim::usage_error("--prefill: expected at least 1, found 0");
    if (decode_ < 1) throw slimtrim::usage_error("--decode: expected at least 1, found 0");
    engine const run(at, device_);
    slimtrim::opened_model const model = slimtrim::open_model(model_);
    slimtrim::inspection const seen = slimtrim::inspect(*model.files, model.config);
    std::vector<std::uint32_t> prompt;
    for (index_t i = 0; i < prefill_; ++i)
      prompt.push_back(static_cast<std::uint32_t>(slimtrim::uniform_at(at.seed, 0, static_cast<std::uint64_t>(i)) *
                                                  static_cast<double>(model.config.vocabulary)));
    speed const measured = run.measure(model, prompt, decode_);
    double const prefill = static_cast<double>(prefill_) / measured.prefill_seconds;
    double const decode = static_cast<double>(decode_) / measured.decode_seconds;
    std::uint64_t const resident = peak_resident_bytes();
    double const of_device = run.device_bandwidth();
    double const bandwidth = of_device > 0 ? of_device : memory_bandwidth(at);
    double const share = bandwidth > 0 ? decode * static_cast<double>(seen.total.active_bytes) / bandwidth : 0;
    if (at.json) {
      at.print(slimtrim::json_text({{"prefill_tps", prefill},
                                    {"decode_tps", decode},
                                    {"bytes_per_token", seen.total.active_bytes},
                                    {"bandwidth_share", share},
                                    {"bandwidth", bandwidth},
                                    {"peak_rss", resident},
                                    {"peak_device_bytes", run.peak_device_bytes()}}));
      return;
    }
    table measures({"measure", "value"});
    measures.add({"prefill tokens/s", number_text(prefill)});
    measures.add({"decode tokens/s", number_text(decode)});
    measures.add({"weights read per token", bytes_text(static_cast<double>(seen.total.active_bytes))});
    measures.add({"share of memory bandwidth", number_text(100 * share, 3) + " %"});
    measures.add({"peak resident memory", bytes_text(static_cast<double>(resident))});
    if (run.peak_device_bytes() > 0)
      measures.add({"peak device memory", bytes_text(static_cast<double>(run.peak_device_bytes()))});
    at.print(measures.text());
  }

 private:
  std::string model_;
  index_t prefill_ = 512;
  index_t decode_ = 64;
  device_flags device_;
};

}  // namespace

std::unique_ptr<command> make_bench_command() { return std::make_unique<bench_command>(); }

}  // namespace cli
