// slimtrim eval: perplexity, and the distance from the model that it was made of.

#include "command.hpp"
#include "document.hpp"
#include "engine.hpp"
#include "table.hpp"

#include <optional>

namespace cli {

namespace {

class eval_command final : public command {
 public:
  std::string name() const override { return "eval"; }
  std::string summary() const override { return "Measure perplexity, and KL and agreement with a base model"; }
  std::string examples() const override {
    return "The mean negative log-likelihood (nats) is over all tokens of every window but its first; perplexity is its\n"
           "exponential. KL is KL(base || model) per such token. retention = nll of base / nll. Both models are streamed\n"
           "layer by layer.\n"
           "Examples:\n"
           "  slimtrim eval examples/models/tiny-mixtral --data valid.u16 --seq 256 --tokens 4096\n"
           "  slimtrim eval small --base big --data text.txt --json\n"
           "  slimtrim eval small --base big --data self --tokens 16384 --seq 256 --seed 1";
  }
  void declare(option_set& options) override {
    options.positional("MODEL", model_, "Model folder");
    options.text("--base", base_, "Model folder to compare with (same vocabulary); self text comes from it");
    data_.declare(options, true, "Text to measure on");
    device_.declare(options);
    memory_.declare(options);
  }
  void run(session const& at) override {
    engine const run(at, device_, memory_);
    slimtrim::opened_model const model = slimtrim::open_model(model_);
    std::optional<slimtrim::opened_model> base;
    if (!base_.empty()) base = slimtrim::open_model(base_);
    slimtrim::token_windows const windows = run.windows(base ? *base : model, data_);
    slimtrim::evaluation const seen = run.evaluate(model, base ? &*base : nullptr, windows);
    double const rate = static_cast<double>(windows.tokens.size()) / seen.seconds;
    if (at.json) {
      slimtrim::ordered_json json{{"perplexity", seen.perplexity()},
                                  {"nll", seen.nll},
                                  {"tokens", windows.tokens.size()},
                                  {"scored", seen.tokens},
                                  {"windows", windows.count()},
                                  {"sequence", windows.sequence}};
      if (base) {
        json["kl_mean"] = seen.kl_mean;
        json["kl_p99"] = seen.kl_p99;
        json["top1_agreement"] = seen.top1_agreement;
        if (seen.chosen_agreement >= 0) json["chosen_agreement"] = seen.chosen_agreement;
        json["perplexity_base"] = seen.base_perplexity();
        json["retention"] = seen.retention();
      }
      json["tokens_per_second"] = rate;
      print_document(at, "eval", json);
      return;
    }
    table measures({"measure", "value"});
    measures.add({"perplexity", number_text(seen.perplexity(), 6)});
    measures.add({"nll (nats)", number_text(seen.nll, 6)});
    if (base) {
      measures.add({"perplexity of base", number_text(seen.base_perplexity(), 6)});
      measures.add({"retention", number_text(seen.retention(), 5)});
      measures.add({"KL mean (nats)", number_text(seen.kl_mean)});
      measures.add({"KL 99th percentile", number_text(seen.kl_p99)});
      measures.add({"top-1 agreement", number_text(seen.top1_agreement)});
      if (seen.chosen_agreement >= 0) measures.add({"same experts chosen", number_text(seen.chosen_agreement)});
    }
    measures.add({"tokens", std::to_string(windows.tokens.size())});
    measures.add({"tokens/s", number_text(rate)});
    at.print(measures.text());
  }

 private:
  std::string model_;
  std::string base_;
  data_flags data_;
  device_flags device_;
  memory_flags memory_;
};

}  // namespace

std::unique_ptr<command> make_eval_command() { return std::make_unique<eval_command>(); }

}  // namespace cli
