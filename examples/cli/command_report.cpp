// slimtrim report: one HTML page from the JSON files of a folder.

#include "command.hpp"
#include "document.hpp"
#include "table.hpp"

#include <slimtrim/io/atomic_file.hpp>
#include <slimtrim/pipeline/report.hpp>

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace cli {

namespace {

class report_command final : public command {
 public:
  std::string name() const override { return "report"; }
  std::string summary() const override { return "Make one HTML page from the JSON files of a folder"; }
  std::string examples() const override {
    return "DIR holds what inspect, compress, eval, bench, stats show and plan with a target printed with --json, as\n"
           "<name>.<anything>.json; files of one name describe one model, and base is the original. Other JSON files are passed\n"
           "over. The page needs nothing else.\n"
           "Examples:\n"
           "  slimtrim inspect big --json > results/base.inspect.json\n"
           "  slimtrim compress big small --recipe rtn:4g128 --json > results/small.compress.json\n"
           "  slimtrim eval small --base big --data text.txt --json > results/small.eval.json\n"
           "  slimtrim report results -o report.html";
  }
  void declare(option_set& options) override {
    options.positional("DIR", folder_, "Folder with JSON files");
    options.text("-o,--output", out_, "HTML file to create; must not exist", true);
    options.text("--title", title_, "Title of the page");
    options.flag("--table", table_, "Also print the table of models");
    options.flag("--markdown", markdown_, "Print that table in Markdown");
    options.text("--figure", figure_, "Also write the similarity heat map as an SVG file; must not exist; takes what stats show printed");
  }
  void run(session const& at) override {
    std::filesystem::path const page_file = slimtrim::check_new_output(out_);
    if (!figure_.empty() && slimtrim::check_new_output(figure_) == page_file)
      throw slimtrim::usage_error("--figure: expected another file than -o");
    slimtrim::report_documents const documents = slimtrim::read_report_folder(folder_);
    if (!figure_.empty() && documents.statistics.is_null())
      throw slimtrim::input_error(folder_, "--figure: expected what stats show printed among the files, found none");
    std::string const page = slimtrim::report_html(documents, title_);
    std::string const figure = figure_.empty() ? std::string() : figure_of(documents);
    slimtrim::write_file_atomically(out_, page);
    if (!figure_.empty()) slimtrim::write_file_atomically(figure_, figure);
    if ((table_ || markdown_) && !at.json) at.print(markdown_ ? table_of(documents).markdown() : table_of(documents).text());
    if (at.json)
      print_document(at, "report", {{"models", documents.models.size()}, {"output", out_}});
    else if (!markdown_)
      at.print(out_ + ": " + std::to_string(documents.models.size()) + " models\n");
  }

 private:
  /// The heat map of similarities, with crosses where the first model that lost layers lost them.
  [[nodiscard]] static std::string figure_of(slimtrim::report_documents const& documents) {
    slimtrim::ordered_json compress = nullptr;
    for (auto const& model : documents.models)
      if (compress.is_null() && !slimtrim::detail::dropped_layers(model.compress).empty()) compress = model.compress;
    return slimtrim::svg_of(slimtrim::similarity_map(documents.statistics, compress));
  }

  [[nodiscard]] static table table_of(slimtrim::report_documents const& documents) {
    using slimtrim::detail::number_at;
    bool const speeds = std::any_of(documents.models.begin(), documents.models.end(), [](auto const& m) { return !m.speed.is_null(); });
    std::vector<std::string> heads{"model", "recipe", "MB", "active MB/token", "KL", "top-1", "same experts", "perplexity"};
    if (speeds) heads.push_back("decoded tokens/s");
    table rows(std::move(heads));
    auto const cell = [](double value, int digits) { return slimtrim::short_number(value, digits); };
    for (auto const& m : documents.models) {
      std::string recipe = m.compress.is_object() ? m.compress.value("recipe", std::string()) : std::string(m.name == "base" ? "original" : "-");
      // Recipes that only TOML can say have several lines.
      std::replace(recipe.begin(), recipe.end(), '\n', ' ');
      std::vector<std::string> cells{m.name, recipe, cell(slimtrim::detail::model_bytes(m) / 1e6, 4),
                cell(slimtrim::detail::model_active_bytes(m) / 1e6, 4), cell(number_at(m.evaluation, "kl_mean"), 3),
                cell(number_at(m.evaluation, "top1_agreement"), 3),
                cell(number_at(m.evaluation, "chosen_agreement"), 3), cell(number_at(m.evaluation, "perplexity"), 4)};
      if (speeds) cells.push_back(cell(number_at(m.speed, "decode_tps"), 5));
      rows.add(std::move(cells));
    }
    return rows;
  }

  std::string folder_;
  std::string out_;
  std::string title_ = "slimtrim report";
  std::string figure_;
  bool table_ = false;
  bool markdown_ = false;
};

}  // namespace

std::unique_ptr<command> make_report_command() { return std::make_unique<report_command>(); }

}  // namespace cli
