// slimtrim stats: merge statistics files exactly, and show what they say.

#include "command.hpp"
#include "document.hpp"
#include "table.hpp"

#include <slimtrim/core/error.hpp>
#include <slimtrim/pipeline/statistics_file.hpp>
#include <slimtrim/pipeline/statistics_report.hpp>
#include <slimtrim/pipeline/statistics_shape.hpp>

#include <cmath>

namespace cli {

namespace {

slimtrim::model_statistics load(std::string const& path) {
  return slimtrim::load_statistics(path, slimtrim::statistics_shape(path));
}

class stats_command final : public command {
 public:
  std::string name() const override { return "stats"; }
  std::string summary() const override { return "Merge statistics files exactly, or show one"; }
  std::string examples() const override {
    return "Merging is exact: any order and grouping of parts gives the same sums, bit for bit, as one pass over all of\n"
           "the text. Parts must be of one model and of different windows.\n"
           "Similarity is the mean cosine of what goes in and what comes out (blocks: the whole layer; moe: Layer Drop).\n"
           "Examples:\n"
           "  slimtrim stats merge part1.stats part2.stats -o all.stats\n"
           "  slimtrim stats show all.stats\n"
           "  slimtrim stats show all.stats --criterion reap_residual --json";
  }
  void declare(option_set& options) override {
    options.positional("ACTION", action_, "merge or show");
    options.positionals("FILES", files_, "Statistics files: two or more to merge, one to show");
    options.text("-o,--output", out_, "merge: file to create; must not exist");
    options.text("--criterion", criterion_, "show: how experts are scored in the table");
  }
  void run(session const& at) override {
    if (action_ == "merge") return merge(at);
    if (action_ == "show") return show(at);
    throw slimtrim::usage_error("stats: expected merge or show, found '" + action_ + "'");
  }

 private:
  void merge(session const& at) const {
    if (files_.size() < 2) throw slimtrim::usage_error("stats merge: expected two or more files, found one");
    if (out_.empty()) throw slimtrim::usage_error("stats merge: expected -o with the file to create");
    slimtrim::check_new_output(out_);
    auto const report = [&](std::size_t done) {
      slimtrim::report_progress(at.progress, "merge", static_cast<index_t>(done), static_cast<index_t>(files_.size()), "files");
    };
    report(0);
    slimtrim::model_statistics all = load(files_.front());
    for (std::size_t i = 1; i < files_.size(); ++i) {
      report(i);
      all.merge(load(files_[i]), files_[i]);
    }
    report(files_.size());
    slimtrim::save_statistics(all, out_);
    if (at.json)
      print_document(at, "stats merge", {{"tokens", all.tokens()}, {"windows", all.windows.size()}, {"coverage", all.coverage()}});
    else
      at.print(out_ + ": " + std::to_string(all.tokens()) + " tokens, at least " + std::to_string(all.coverage()) +
               " for each expert\n");
  }

  void show(session const& at) const {
    if (files_.size() != 1)
      throw slimtrim::usage_error("stats show: expected one file, found " + std::to_string(files_.size()));
    slimtrim::model_statistics const statistics = load(files_.front());
    if (at.json) {
      print_document(at, "stats show", slimtrim::statistics_json(statistics));
      return;
    }
    slimtrim::criterion_choice const choice = slimtrim::find_criterion(criterion_);
    if (choice.entry->score == nullptr)
      throw slimtrim::usage_error("--criterion: expected one that statistics decide, found '" + criterion_ + "'");
    table layers({"layer", "block", "attention", "moe", "fewest tokens", criterion_ + " of experts"});
    for (std::size_t i = 0; i < statistics.layers.size(); ++i) {
      slimtrim::layer_statistics const& layer = statistics.layers[i];
      std::string scores;
      if (layer.experts() > 0)
        for (double const score : choice.entry->score(layer))
          scores += (scores.empty() ? "" : " ") + (std::isfinite(score) ? number_text(score, 3) : std::string("-"));
      layers.add({std::to_string(i), number_text(layer.similarity.block(), 4), number_text(layer.similarity.attention(), 4),
                  number_text(layer.similarity.moe(), 4),
                  layer.experts() > 0 ? number_text(layer.router.coverage(), 9) : std::string("-"), scores});
    }
    at.print(std::to_string(statistics.tokens()) + " tokens in windows of " + std::to_string(statistics.sequence) +
             ", model " + statistics.model + "\n\n" + layers.text());
  }

  std::string action_;
  std::vector<std::string> files_;
  std::string out_;
  std::string criterion_ = "reap";
};

}  // namespace

std::unique_ptr<command> make_stats_command() { return std::make_unique<stats_command>(); }

}  // namespace cli
