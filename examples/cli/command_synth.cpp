// slimtrim synth: a seeded random checkpoint of any size.

#include "command.hpp"
#include "document.hpp"
#include "table.hpp"

#include <slimtrim/pipeline/synth.hpp>

namespace cli {

namespace {

class synth_command final : public command {
 public:
  std::string name() const override { return "synth"; }
  std::string summary() const override { return "Write a seeded random checkpoint of any size"; }
  std::string examples() const override {
    return "Weights are bfloat16, the tokenizer has the 256 bytes as tokens. Memory stays constant.\n"
           "Examples:\n"
           "  slimtrim synth toy --layers 4 --experts 8 --identity-layers 2\n"
           "  slimtrim synth big --hidden 1024 --intermediate 3584 --layers 16 --heads 16 --kv-heads 4 --vocab 32000\n"
           "  slimtrim synth fine --family deepseek --experts 64 --top-k 6 --intermediate 128 --shared-experts 2";
  }
  void declare(option_set& options) override {
    slimtrim::synth_shape& shape = options_.shape;
    options.positional("OUT", out_, "Folder to create; must not exist");
    options.text("--family", shape.family, "mixtral or deepseek");
    options.number("--layers", shape.layers, "Decoder layers");
    options.number("--hidden", shape.hidden, "Width of the residual stream");
    options.number("--intermediate", shape.intermediate, "Width of one routed expert");
    options.number("--experts", shape.experts, "Routed experts of a layer");
    options.number("--top-k", shape.top_k, "Experts that a token takes");
    options.number("--heads", shape.heads, "Attention heads");
    options.number("--kv-heads", shape.key_value_heads, "Key and value heads [as --heads]");
    options.number("--head-dim", shape.head_dim, "Width of a head [hidden / heads]");
    options.number("--vocab", shape.vocabulary, "Tokens of the vocabulary");
    options.number("--positions", shape.positions, "Longest sequence stated in config.json");
    options.number("--shared-experts", shape.shared_experts, "deepseek: experts that every token takes");
    options.number("--first-dense", shape.first_dense, "deepseek: leading layers without experts");
    options.number("--dense-intermediate", shape.dense_intermediate,
                   "deepseek: width of those layers [intermediate * (top-k + shared-experts)]");
    options.flag("--tied", shape.tied_embeddings, "The head is the embedding");
    options.numbers("--identity-layers", options_.identity_layers, "Layers (from 0) that add almost nothing");
    options.number("--duplicate-experts", options_.duplicate_experts,
                   "In every layer, the last N experts are copies of the first N");
    options.bytes("--shard-size", options_.shard_bytes, "Most bytes of one safetensors file [5GB]");
  }
  void run(session const& at) override {
    options_.seed = at.seed;
    slimtrim::synth_result const made = slimtrim::synthesize(out_, options_, at.pool, at.progress);
    if (at.json) {
      slimtrim::ordered_json const json{
          {"out", out_}, {"parameters", made.parameters}, {"bytes", made.file_bytes}, {"files", made.files}};
      print_document(at, "synth", json);
    } else {
      at.print(out_ + ": " + count_text(static_cast<double>(made.parameters)) + " parameters, " +
               bytes_text(static_cast<double>(made.file_bytes)) + " in " + std::to_string(made.files) +
               (made.files == 1 ? " file\n" : " files\n"));
    }
  }

 private:
  std::string out_;
  slimtrim::synth_options options_;
};

}  // namespace

std::unique_ptr<command> make_synth_command() { return std::make_unique<synth_command>(); }

}  // namespace cli
