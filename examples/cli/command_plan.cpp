// slimtrim plan: decide, price and check, without writing a model.

#include "command.hpp"
#include "deciding.hpp"
#include "table.hpp"

#include <slimtrim/io/atomic_file.hpp>
#include <slimtrim/pipeline/plan_file.hpp>
#include <slimtrim/pipeline/price.hpp>

namespace cli {

namespace {

class plan_command final : public command {
 public:
  std::string name() const override { return "plan"; }
  std::string summary() const override { return "Decide and price what a recipe would do, and write only the plan"; }
  std::string examples() const override {
    return "The plan is JSON: it can be read, edited and given to compress --plan. Layers and experts have the numbers\n"
           "of MODEL. Bytes are those of the safetensors files that compress would write.\n"
           "Examples:\n"
           "  slimtrim plan mixtral --stats c4.stats --recipe layer_drop:8+rtn:4g128 -o l8.json\n"
           "  slimtrim plan mixtral --stats c4.stats --recipe expert_drop:6/8@global_reap_residual -o e6.json --json";
  }
  void declare(option_set& options) override {
    options.positional("MODEL", model_, "Model folder");
    flags_.declare(options);
    options.text("-o,--output", out_, "Plan to create; must not exist", true);
    options.text("--format", format_, "Of packed weights: compressed-tensors, awq or gptq [the input's, else the first]");
    device_.declare(options);
  }
  void run(session const& at) override {
    engine const run(at, device_);
    slimtrim::detail::require_absent(slimtrim::detail::resolve_new_path(out_));
    slimtrim::opened_model const model = slimtrim::open_model(model_);
    decided const made = decide_plan(at, run, model, flags_);
    slimtrim::inspection const before = slimtrim::inspect(*model.files, model.config);
    slimtrim::inspection const after = slimtrim::price(model, made.plan, format_);
    slimtrim::ordered_json const document = slimtrim::plan_json(made.plan);
    slimtrim::write_file_atomically(out_, slimtrim::json_text(document), {model.files->folder()});
    note_loaders(at, model, made.plan, format_);
    if (at.json) {
      slimtrim::ordered_json json{{"bytes", after.file_bytes},
                                  {"active_bytes", after.total.active_bytes},
                                  {"parameters", after.total.parameters},
                                  {"active_parameters", after.total.active_parameters},
                                  {"bytes_in", before.file_bytes},
                                  {"active_bytes_in", before.total.active_bytes},
                                  {"recipe", made.plan.recipe},
                                  {"steps", document["evidence"]},
                                  {"layers", document["layers"]}};
      at.print(slimtrim::json_text(json));
      return;
    }
    table sizes({"", "bytes", "active bytes", "parameters", "active"});
    auto const row = [&](std::string const& label, slimtrim::inspection const& of) {
      sizes.add({label, bytes_text(static_cast<double>(of.file_bytes)),
                 bytes_text(static_cast<double>(of.total.active_bytes)),
                 count_text(static_cast<double>(of.total.parameters)),
                 count_text(static_cast<double>(of.total.active_parameters))});
    };
    row("now", before);
    row("planned", after);
    at.print(made.plan.recipe + "\n\n" + sizes.text() + "\n" + changes(made.plan, model.config));
  }

 private:
  /// One line for each layer that loses something.
  static std::string changes(slimtrim::plan const& plan, slimtrim::model_config const& config) {
    table layers({"layer", "what goes"});
    bool any = false;
    for (index_t i = 0; i < config.layer_count(); ++i) {
      slimtrim::layer_plan const& kept = plan.layer(i);
      std::string gone;
      if (!kept.block) {
        gone = "block";
      } else {
        if (!kept.attention && config.layer(i).attention) gone = "attention";
        if (!kept.feed_forward && config.layer(i).feed_forward != slimtrim::feed_forward_kind::none)
          gone += gone.empty() ? "moe" : ", moe";
        if (kept.feed_forward) {
          std::string experts;
          for (index_t e = 0; e < config.layer(i).experts; ++e)
            if (!std::binary_search(kept.experts.begin(), kept.experts.end(), e))
              experts += (experts.empty() ? "" : " ") + std::to_string(e);
          if (!experts.empty()) gone += (gone.empty() ? "experts " : ", experts ") + experts;
        }
      }
      if (gone.empty()) continue;
      layers.add({std::to_string(i), gone});
      any = true;
    }
    return any ? layers.text() : std::string();
  }

  std::string model_;
  std::string out_;
  std::string format_;
  decide_flags flags_;
  device_flags device_;
};

}  // namespace

std::unique_ptr<command> make_plan_command() { return std::make_unique<plan_command>(); }

}  // namespace cli
