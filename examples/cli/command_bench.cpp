// slimtrim bench: speed and memory of a model on this machine.

#include "command.hpp"
#include "document.hpp"
#include "engine.hpp"
#include "table.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/pipeline/inspect.hpp>

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <numeric>
#include <optional>

namespace cli {

namespace {

/// Memory beyond the caches, on huge pages where the system has them, as the weights are.
class memory_probe {
 public:
  memory_probe() : words_(static_cast<std::uint64_t*>(std::aligned_alloc(huge_page, bytes)), std::free) {
    if (words_ == nullptr) throw std::bad_alloc();
    static_cast<void>(::madvise(words_.get(), bytes, MADV_HUGEPAGE));
    std::fill_n(words_.get(), bytes / sizeof(std::uint64_t), std::uint64_t{1});
  }

  /// Bytes a second that all threads together read in one pass.
  [[nodiscard]] double bandwidth(session const& at) const {
    constexpr index_t piece = index_t{1} << 17, pieces = static_cast<index_t>(bytes / sizeof(std::uint64_t)) / piece;
    std::vector<std::uint64_t> sums(static_cast<std::size_t>(pieces));
    auto const begin = std::chrono::steady_clock::now();
    slimtrim::parallel_for(at.pool, pieces, [&](index_t i) {
      std::uint64_t const* const from = words_.get() + i * piece;
      std::uint64_t sum[16] = {};
      for (index_t j = 0; j < piece; j += 16)
        for (int lane = 0; lane < 16; ++lane) sum[lane] += from[j + lane];
      sums[static_cast<std::size_t>(i)] = std::accumulate(sum, sum + 16, std::uint64_t{0});
    });
    double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    // The sums are looked at, so that the reading cannot be left out.
    if (std::count(sums.begin(), sums.end(), static_cast<std::uint64_t>(piece)) != pieces) return 0;
    return static_cast<double>(bytes) / seconds;
  }

 private:
  static constexpr std::size_t huge_page = std::size_t{2} << 20, bytes = std::size_t{256} << 20;
  std::unique_ptr<std::uint64_t, decltype(&std::free)> words_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class bench_command final : public command {
 public:
  std::string name() const override { return "bench"; }
  std::string summary() const override { return "Measure speed and memory of a model"; }
  std::string examples() const override {
    return "Random tokens (--seed), one sequence; medians of --rounds runs after one that is not counted. bytes_per_token is\n"
           "what decoding one token reads of the weights; bandwidth_share is that rate over the median rate at which all\n"
           "threads read memory, measured between the runs.\n"
           "Examples:\n"
           "  slimtrim bench examples/models/tiny-mixtral --prefill 128 --decode 64\n"
           "  slimtrim bench mixtral-4bit --prefill 2048 --decode 128 --json";
  }
  void declare(option_set& options) override {
    options.positional("MODEL", model_, "Model folder");
    options.number("--prefill", prefill_, "Tokens of the prompt");
    options.number("--decode", decode_, "Tokens generated after it");
    options.number("--rounds", rounds_, "Runs that are measured");
    cache_.declare(options);
    device_.declare(options);
  }
  void run(session const& at) override {
    if (prefill_ < 1) throw slimtrim::usage_error("--prefill: expected at least 1, found 0");
    if (decode_ < 1) throw slimtrim::usage_error("--decode: expected at least 1, found 0");
    if (rounds_ < 1) throw slimtrim::usage_error("--rounds: expected at least 1, found 0");
    slimtrim::kv_precision const cache = cache_.chosen();
    engine const run(at, device_);
    slimtrim::opened_model const model = slimtrim::open_model(model_);
    slimtrim::inspection const seen = slimtrim::inspect(*model.files, model.config);
    std::vector<std::uint32_t> prompt;
    for (index_t i = 0; i < prefill_; ++i)
      prompt.push_back(static_cast<std::uint32_t>(slimtrim::uniform_at(at.seed, 0, static_cast<std::uint64_t>(i)) *
                                                  static_cast<double>(model.config.vocabulary)));
    std::vector<double> prefills, decodes, reads;
    std::uint64_t resident = 0;
    std::optional<memory_probe> memory;
    auto const measured = run.measure(model, prompt, decode_, cache, rounds_, [&] {
      // Before the first probe, whose memory is not the model's.
      if (resident == 0) resident = peak_resident_bytes();
      if (device_.device != "cpu") return;
      if (!memory) memory.emplace();
      for (int pass = 0; pass < 3; ++pass) reads.push_back(memory->bandwidth(at));
    });
    for (speed const& each : measured) {
      prefills.push_back(static_cast<double>(prefill_) / each.prefill_seconds);
      decodes.push_back(static_cast<double>(decode_) / each.decode_seconds);
    }
    double const prefill = median(prefills), decode = median(decodes);
    double const bandwidth = device_.device != "cpu" ? run.device_bandwidth() : median(reads);
    double const share = bandwidth > 0 ? decode * static_cast<double>(seen.total.active_bytes) / bandwidth : 0;
    if (at.json) {
      print_document(at, "bench", {{"prefill_tps", prefill},
                                   {"decode_tps", decode},
                                   {"bytes_per_token", seen.total.active_bytes},
                                   {"bandwidth_share", share},
                                   {"bandwidth", bandwidth},
                                   {"peak_rss", resident},
                                   {"peak_device_bytes", run.peak_device_bytes()}});
      return;
    }
    table measures({"measure", "value"});
    measures.add({"prefill tokens/s", number_text(prefill)});
    measures.add({"decode tokens/s", number_text(decode)});
    measures.add({"weights read per token", bytes_text(static_cast<double>(seen.total.active_bytes))});
    measures.add({"memory read per second", bytes_text(bandwidth)});
    measures.add({"share of it", number_text(100 * share, 3) + " %"});
    measures.add({"peak resident memory", bytes_text(static_cast<double>(resident))});
    if (run.peak_device_bytes() > 0)
      measures.add({"peak device memory", bytes_text(static_cast<double>(run.peak_device_bytes()))});
    at.print(measures.text());
  }

 private:
  std::string model_;
  index_t prefill_ = 512;
  index_t decode_ = 64;
  index_t rounds_ = 3;
  cache_flags cache_;
  device_flags device_;
};

}  // namespace

std::unique_ptr<command> make_bench_command() { return std::make_unique<bench_command>(); }

}  // namespace cli
