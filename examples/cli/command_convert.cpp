// slimtrim convert: the same model in another file format.

#include "command.hpp"
#include "document.hpp"
#include "table.hpp"

#include <slimtrim/pipeline/convert_folder.hpp>
#include <slimtrim/pipeline/convert_gguf.hpp>

#include <algorithm>

namespace cli {

namespace {

class convert_command final : public command {
 public:
  std::string name() const override { return "convert"; }
  std::string summary() const override { return "Write a model in another format: bf16, a packed one, or GGUF"; }
  std::string examples() const override {
    return "bf16 expands packed weights. compressed-tensors, awq and gptq take over the codes of weights that are "
           "packed\n"
           "already (to pack dense ones is a recipe: slimtrim compress). gguf writes one file for llama.cpp: 4- and "
           "8-bit\n"
           "weights without zero points keep their codes as Q4_0 and Q8_0; --type changes all matrices.\n"
           "Examples:\n"
           "  slimtrim convert mixtral mixtral.gguf --format gguf\n"
           "  slimtrim convert mixtral mixtral-q8.gguf --format gguf --type q8_0\n"
           "  slimtrim convert mixtral-4bit expanded --format bf16";
  }
  void declare(option_set& options) override {
    options.positional("MODEL", model_, "Model folder");
    options.positional("OUT", out_, "Folder (gguf: file) to create; must not exist");
    options.text("--format", format_, "bf16, compressed-tensors, awq, gptq or gguf", true);
    options.text("--type", type_, "gguf: f32, f16, bf16, q8_0 or q4_0 [as it is stored]");
    options.bytes("--shard-size", shard_bytes_, "Most bytes of one safetensors file [5GB]");
  }
  void run(session const& at) override {
    if (format_ != "gguf" && !type_.empty()) throw slimtrim::usage_error("--type: expected with --format gguf only");
    if (shard_bytes_ == 0) throw slimtrim::usage_error("--shard-size: expected at least 1 byte");
    slimtrim::ordered_json json;
    if (format_ == "gguf") {
      slimtrim::convert_gguf_options options;
      if (!type_.empty()) {
        options.type = slimtrim::gguf_type_from_name(type_);
        if (!options.type)
          throw slimtrim::usage_error("--type: expected f32, f16, bf16, q8_0 or q4_0, found '" + type_ + "'");
      }
      options.run_on = at.pool;
      options.progress = at.progress;
      slimtrim::convert_gguf_result const made = slimtrim::convert_gguf(slimtrim::open_model(model_), out_, options);
      for (std::string const& note : made.notes) at.note(note);
      json = {{"format", format_},
              {"bytes_in", made.bytes_in},
              {"bytes_out", made.bytes_out},
              {"types", made.types},
              {"notes", made.notes}};
    } else {
      slimtrim::convert_folder_options options;
      options.format = format_;
      options.most_shard_bytes = shard_bytes_;
      options.progress = at.progress;
      slimtrim::convert_folder_result const made =
          slimtrim::convert_folder(slimtrim::open_model(model_), out_, options);
      json = {{"format", format_},         {"bytes_in", made.bytes_in}, {"bytes_out", made.bytes_out},
              {"expanded", made.expanded}, {"repacked", made.repacked}, {"passed_through", made.passed_through}};
    }
    if (at.json) {
      print_document(at, "convert", json);
      return;
    }
    at.print(out_ + ": " + bytes_text(json["bytes_out"].get<double>()) + " as " + format_ + ", of " +
             bytes_text(json["bytes_in"].get<double>()) + "\n");
  }

 private:
  std::string model_;
  std::string out_;
  std::string format_;
  std::string type_;
  std::uint64_t shard_bytes_ = 5'000'000'000;
};

}  // namespace

std::unique_ptr<command> make_convert_command() { return std::make_unique<convert_command>(); }

}  // namespace cli
