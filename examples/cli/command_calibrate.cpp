// slimtrim calibrate: one forward pass, all statistics.

#include "command.hpp"
#include "document.hpp"
#include "engine.hpp"
#include "table.hpp"

#include <slimtrim/pipeline/statistics_file.hpp>

#include <chrono>

namespace cli {

namespace {

class calibrate_command final : public command {
 public:
  std::string name() const override { return "calibrate"; }
  std::string summary() const override { return "Run text through a model once and keep all statistics"; }
  std::string examples() const override {
    return "The file holds exact sums, so parts of a text can be calibrated apart and merged (slimtrim stats merge).\n"
           "Coverage is the fewest tokens that any expert got.\n"
           "Examples:\n"
           "  slimtrim calibrate mixtral --data c4.jsonl --tokens 262144 --seq 2048 -o c4.stats\n"
           "  slimtrim calibrate examples/models/tiny-mixtral --data self --tokens 16384 -o self.stats";
  }
  void declare(option_set& options) override {
    options.positional("MODEL", model_, "Model folder");
    data_.declare(options, true, "Text to run");
    options.text("-o,--output", out_, "Statistics file to create; must not exist", true);
    options.flag("--block-table", blocks_, "Also similarities around every run of blocks (block_drop@consecutive)");
    device_.declare(options);
    memory_.declare(options);
  }
  void run(session const& at) override {
    engine const run(at, device_, memory_);
    slimtrim::opened_model const model = slimtrim::open_model(model_);
    slimtrim::check_new_output(out_, {model.files->folder()});
    slimtrim::token_windows const windows = run.windows(model, data_);
    slimtrim::statistics_tables tables;
    tables.blocks = blocks_;
    auto const begin = std::chrono::steady_clock::now();
    slimtrim::model_statistics const statistics = run.calibrate(model, windows, tables);
    double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    slimtrim::save_statistics(statistics, out_, {model.files->folder()});
    for (std::size_t i = 0; i < statistics.layers.size(); ++i) {
      std::string list;
      for (index_t const e : statistics.layers[i].router.unreached()) list += (list.empty() ? "" : ", ") + std::to_string(e);
      if (!list.empty()) at.note("layer " + std::to_string(i) + ": no token reached expert " + list);
    }
    double const rate = static_cast<double>(statistics.tokens()) / seconds;
    if (at.json) {
      print_document(at, "calibrate", {{"tokens", statistics.tokens()},
                                       {"layers", statistics.layers.size()},
                                       {"seconds", seconds},
                                       {"tokens_per_second", rate},
                                       {"coverage", statistics.coverage()}});
    } else {
      at.print(out_ + ": " + std::to_string(statistics.tokens()) + " tokens through " +
               std::to_string(statistics.layers.size()) + " layers in " + duration_text(seconds) + " (" +
               number_text(rate) + " tokens/s), at least " + std::to_string(statistics.coverage()) +
               " tokens for each expert\n");
    }
  }

 private:
  std::string model_;
  std::string out_;
  bool blocks_ = false;
  data_flags data_;
  device_flags device_;
  memory_flags memory_;
};

}  // namespace

std::unique_ptr<command> make_calibrate_command() { return std::make_unique<calibrate_command>(); }

}  // namespace cli
