// slimtrim inspect: what a checkpoint consists of.

#include "command.hpp"
#include "document.hpp"
#include "table.hpp"

#include <slimtrim/pipeline/inspect.hpp>
#include <slimtrim/pipeline/open_model.hpp>

namespace cli {

namespace {

using slimtrim::amount;

std::string counted(index_t value) { return count_text(static_cast<double>(value)); }
std::string sized(index_t value) { return bytes_text(static_cast<double>(value)); }
std::string bits(amount const& of) {
  if (of.parameters == 0) return "-";
  return number_text(8 * static_cast<double>(of.bytes) / static_cast<double>(of.parameters), 3);
}

class inspect_command final : public command {
 public:
  std::string name() const override { return "inspect"; }
  std::string summary() const override { return "Show family, layers, experts, parameters and bytes of a checkpoint"; }
  std::string examples() const override {
    return "Active is what the computation of one token reads: its experts, one row of the embedding, all of the rest.\n"
           "Examples:\n"
           "  slimtrim inspect examples/models/tiny-mixtral\n"
           "  slimtrim inspect mixtral --layers --json";
  }
  void declare(option_set& options) override {
    options.positional("MODEL", model_, "Model folder: config.json and safetensors files");
    options.flag("--layers", by_layer_, "One row for each layer too (--json always has them)");
  }
  void run(session const& at) override {
    slimtrim::opened_model const model = slimtrim::open_model(model_);
    slimtrim::model_config const& config = model.config;
    slimtrim::inspection const seen = slimtrim::inspect(*model.files, config);
    slimtrim::ordered_json json = slimtrim::inspection_json(seen, config);
    std::string const packed = model.format ? (model.format->writes() ? std::string(model.format->method()) : "fp8") : "";
    std::string recipe;
    for (auto const& [key, value] : model.files->metadata())
      if (key == "slimtrim.recipe") recipe = value;
    json["packed"] = packed.empty() ? slimtrim::ordered_json(nullptr) : slimtrim::ordered_json(packed);
    json["recipe"] = recipe.empty() ? slimtrim::ordered_json(nullptr) : slimtrim::ordered_json(recipe);
    if (at.json) {
      print_document(at, "inspect", json);
      return;
    }
    std::string text = json["family"].get<std::string>() + ", " + std::to_string(config.layer_count()) +
                       " layers, experts " + json["experts"].dump() + ", top-k " + json["top_k"].dump() + ", " +
                       counted(seen.total.parameters) + " parameters (" + counted(seen.total.active_parameters) +
                       " active), " + bytes_text(static_cast<double>(seen.file_bytes)) + " (" +
                       sized(seen.total.active_bytes) + " active)\n\n";
    table components({"component", "parameters", "active", "bytes", "active bytes", "bits"});
    for (std::size_t i = 0; i < slimtrim::component_names.size(); ++i)
      if (seen.components[i].bytes != 0) components.add(row(std::string(slimtrim::component_names[i]), seen.components[i]));
    components.add(row("all", seen.total));
    text += components.text();
    if (!packed.empty()) text += "\npacked as " + packed + "\n";
    if (!recipe.empty()) text += (packed.empty() ? "\n" : "") + ("made by slimtrim, recipe " + slimtrim::printable(recipe, 1000)) + "\n";
    if (by_layer_) text += "\n" + layer_table(seen, config);
    at.print(text);
  }

 private:
  static std::vector<std::string> row(std::string label, amount const& of) {
    return {std::move(label), counted(of.parameters), counted(of.active_parameters), sized(of.bytes),
            sized(of.active_bytes), bits(of)};
  }
  static std::string layer_table(slimtrim::inspection const& seen, slimtrim::model_config const& config) {
    table layers({"layer", "parameters", "active", "bytes", "active bytes", "bits", "experts", "attention", "feed-forward"});
    for (index_t i = 0; i < config.layer_count(); ++i) {
      slimtrim::layer_config const& layer = config.layer(i);
      std::vector<std::string> cells = row(std::to_string(i), seen.layers[static_cast<std::size_t>(i)]);
      cells.push_back(std::to_string(layer.experts));
      cells.push_back(layer.attention ? "yes" : "dropped");
      cells.push_back(layer.feed_forward == slimtrim::feed_forward_kind::none
                          ? "dropped"
                          : std::string(slimtrim::detail::feed_forward_name(layer.feed_forward)));
      layers.add(std::move(cells));
    }
    return layers.text();
  }

  std::string model_;
  bool by_layer_ = false;
};

}  // namespace

std::unique_ptr<command> make_inspect_command() { return std::make_unique<inspect_command>(); }

}  // namespace cli
