// slimtrim generate: greedy or sampled text.

#include "command.hpp"
#include "document.hpp"
#include "engine.hpp"
#include "table.hpp"

#include <slimtrim/io/json_fields.hpp>
#include <slimtrim/io/tokenizer.hpp>

#include <chrono>
#include <utility>

namespace cli {

namespace {

/// eos_token_id of generation_config.json or config.json: a number or a list.
std::vector<std::uint32_t> end_tokens(slimtrim::opened_model const& model) {
  std::vector<std::uint32_t> ids;
  auto const add = [&](slimtrim::ordered_json const& document) {
    auto const* const field = slimtrim::find_field(document, "eos_token_id");
    if (field == nullptr) return;
    for (slimtrim::ordered_json const& id : field->is_array() ? *field : slimtrim::ordered_json::array({*field}))
      if (id.is_number_unsigned()) ids.push_back(id.get<std::uint32_t>());
  };
  add(model.files->config());
  if (model.files->has_file("generation_config.json"))
    add(slimtrim::read_json(model.files->open_file("generation_config.json")));
  return ids;
}

class generate_command final : public command {
 public:
  std::string name() const override { return "generate"; }
  std::string summary() const override { return "Continue a prompt, greedily or by sampling"; }
  std::string examples() const override {
    return "Weights are mapped, packed ones stay packed. Without --temperature the most likely token is taken.\n"
           "Examples:\n"
           "  slimtrim generate examples/models/tiny-mixtral --prompt \"The city of\" --length 40\n"
           "  slimtrim generate model --prompt \"Once\" --length 200 --temperature 0.8 --top-p 0.95 --seed 7";
  }
  void declare(option_set& options) override {
    options.positional("MODEL", model_, "Model folder with tokenizer.json");
    options.text("--prompt", prompt_, "Text to continue", true);
    options.number("--length", length_, "New tokens at most");
    options.real("--temperature", temperature_, "Logits are divided by it before a token is drawn; 0 is greedy");
    options.number("--top-k", top_k_, "Draw among the N most likely tokens [all]");
    options.real("--top-p", top_p_, "Draw among the fewest tokens that have this probability together");
    options.flag("--ignore-end", ignore_end_, "Go on after an end-of-text token");
    cache_.declare(options);
    device_.declare(options);
  }
  void run(session const& at) override {
    engine const run(at, device_);
    if (temperature_ < 0) throw slimtrim::usage_error("--temperature: expected at least 0");
    if (!(top_p_ > 0 && top_p_ <= 1)) throw slimtrim::usage_error("--top-p: expected above 0, at most 1");
    slimtrim::opened_model const model = slimtrim::open_model(model_);
    slimtrim::tokenizer const words = slimtrim::tokenizer::from_file(model.files->folder() / "tokenizer.json");
    std::vector<std::uint32_t> const prompt = words.encode(prompt_);
    if (prompt.empty()) throw slimtrim::usage_error("--prompt: expected text with at least one token, found none");
    index_t const positions = model.config.maximum_positions, most = static_cast<index_t>(prompt.size()) + length_;
    if (positions > 1 && most > positions)
      at.note("slimtrim: --length: prompt and text may take " + std::to_string(most) + " tokens, and the model was made for " +
              std::to_string(positions) + " positions (max_position_embeddings)");
    if (temperature_ == 0 && (top_k_ != 0 || top_p_ != 1))
      at.note("slimtrim: --top-k, --top-p: without --temperature the most likely token is taken, and they change nothing");
    slimtrim::generate_options options;
    options.length = length_;
    options.cache = cache_.chosen();
    options.sampling = {temperature_, top_k_, top_p_, at.seed};
    if (!ignore_end_) options.stop_tokens = end_tokens(model);

    std::vector<std::uint32_t> made;
    std::string shown;
    auto const begin = std::chrono::steady_clock::now();
    auto const all = run.generate(model, prompt, options, [&](std::uint32_t token) {
      made.push_back(token);
      // The text that appears is progress enough.
      slimtrim::report_progress(at.progress, at.json ? "generate" : "", static_cast<index_t>(made.size()), length_, "tokens");
      return at.json || show(at, words.decode(made), shown);
    });
    double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    double const rate = static_cast<double>(all.size()) / seconds;
    std::string const text = words.decode(all);
    if (at.json) {
      print_document(at, "generate", {{"text", text}, {"tokens", all.size()}, {"tokens_per_second", rate}});
      return;
    }
    at.print(text.substr(std::min(shown.size(), text.size())) + "\n");
    at.note(std::to_string(all.size()) + " tokens, " + number_text(rate) + " tokens/s");
  }

 private:
  /// Prints what is new, but for a character that is not complete yet; false when nobody reads on.
  static bool show(session const& at, std::string const& text, std::string& shown) {
    constexpr std::string_view unfinished = "\xef\xbf\xbd";
    if (text.size() >= 3 && text.compare(text.size() - 3, 3, unfinished) == 0) return true;
    if (text.size() <= shown.size() || text.compare(0, shown.size(), shown) != 0) return true;
    std::size_t const seen = std::exchange(shown, text).size();
    return at.print(std::string_view(text).substr(seen));
  }

  std::string model_;
  std::string prompt_;
  index_t length_ = 128;
  double temperature_ = 0;
  index_t top_k_ = 0;
  double top_p_ = 1;
  bool ignore_end_ = false;
  cache_flags cache_;
  device_flags device_;
};

}  // namespace

std::unique_ptr<command> make_generate_command() { return std::make_unique<generate_command>(); }

}  // namespace cli
