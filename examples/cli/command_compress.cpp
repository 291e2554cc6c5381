// slimtrim compress: the main job.

#include "command.hpp"
#include "deciding.hpp"
#include "document.hpp"
#include "table.hpp"

#include <slimtrim/pipeline/inspect.hpp>
#include <slimtrim/pipeline/price.hpp>

#include <chrono>
#include <map>

namespace cli {

namespace {

class compress_command final : public command {
 public:
  std::string name() const override { return "compress"; }
  std::string summary() const override { return "Write a smaller model by a recipe or a plan"; }
  std::string examples() const override {
    return "OUT appears complete or not at all; MODEL is never touched. Memory is one decoder layer and, for steps that\n"
           "work on tokens, the activations of the calibration text. Recipes: slimtrim recipe --help.\n"
           "Examples:\n"
           "  slimtrim compress mixtral out --recipe layer_drop:8+awq:4g128 --data c4.jsonl --tokens 262144\n"
           "  slimtrim compress mixtral out --recipe rtn:4g128\n"
           "  slimtrim compress mixtral out --recipe expert_drop:6/8@global_reap_residual --stats c4.stats\n"
           "  slimtrim compress mixtral out --plan edited.json";
  }
  void declare(option_set& options) override {
    options.positional("MODEL", model_, "Model folder");
    options.positional("OUT", out_, "Folder to create; must not exist");
    flags_.declare(options);
    options.text("--plan", plan_, "Plan to carry out, instead of --recipe and --stats");
    options.text("--format", format_, "Of packed weights: compressed-tensors, awq or gptq [the input's, else the first]");
    options.bytes("--shard-size", shard_bytes_, "Most bytes of one safetensors file [5GB]");
    options.flag("--masks", masks_, "Also write masks.bitmask into OUT: which weights pruning kept; not with --resume");
    options.flag("--resume", resume_, "Go on where a stopped run of the same command left off, and keep the parts if this one stops");
    device_.declare(options);
    memory_.declare(options);
  }
  void run(session const& at) override {
    if (!plan_.empty() && !flags_.recipe.empty())
      throw slimtrim::usage_error("expected --recipe or --plan, found both");
    if (plan_.empty() && flags_.recipe.empty()) throw slimtrim::usage_error("--recipe: expected, not given (or --plan)");
    if (!plan_.empty() && (!flags_.statistics.empty() || flags_.uniform || flags_.recalibrate))
      throw slimtrim::usage_error("--stats, --uniform, --recalibrate: expected with --recipe; a plan is decided");
    if (shard_bytes_ == 0) throw slimtrim::usage_error("--shard-size: expected at least 1 byte");
    engine const run(at, device_, memory_);
    auto const begin = std::chrono::steady_clock::now();
    slimtrim::opened_model const model = slimtrim::open_model(model_);
    // Mistakes about OUT should show before hours of work, not after.
    slimtrim::check_new_output(out_, {model.files->folder()});
    decided made;
    if (plan_.empty()) {
      made = decide_plan(at, run, model, flags_, true);
    } else {
      made.plan = read_plan_file(plan_, model);
      for (slimtrim::step const& s : made.plan.slimming)
        if (slimtrim::needs_data(s) && flags_.data.data.empty())
          throw slimtrim::usage_error("--plan: step '" + slimtrim::short_form(s) + "' works on tokens: expected --data");
      if (!flags_.data.data.empty()) made.windows = run.windows(model, flags_.data);
    }
    // What the format or the plan cannot do is refused here, before the remarks and the work.
    slimtrim::inspection after = slimtrim::price(model, made.plan, format_);
    note_loaders(at, model, made.plan, format_);
    slimtrim::compress_options options;
    options.format = format_;
    options.most_shard_bytes = shard_bytes_;
    options.resume = resume_;
    options.masks = masks_;
    options.data = made.windows ? &*made.windows : nullptr;
    slimtrim::compress_result const result = run.compress(model, made.plan, out_, options);
    if (result.resumed_layers > 0)
      at.note("slimtrim: --resume: " + std::to_string(result.resumed_layers) + " layers were taken over from the stopped run");
    double const seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    slimtrim::inspection const before = slimtrim::inspect(*model.files, model.config);
    after.file_bytes = result.bytes_out;
    if (at.json)
      print_document(at, "compress", report(made.plan, result, before, after, seconds));
    else
      at.print(summary(made.plan, before, after, seconds));
  }

 private:
  static slimtrim::ordered_json report(slimtrim::plan const& plan, slimtrim::compress_result const& result,
                                       slimtrim::inspection const& before, slimtrim::inspection const& after,
                                       double seconds) {
    slimtrim::ordered_json steps = plan.evidence;
    // Slimmed modules by what was done to them; each in full under `modules`.
    std::map<std::string, index_t> slimmed;
    for (slimtrim::ordered_json const& module : result.slimmed) ++slimmed[module.value("method", "")];
    for (auto const& [method, modules] : slimmed) steps.push_back({{"step", method}, {"modules", modules}});
    return {{"recipe", plan.recipe},
            {"bytes_in", before.file_bytes},
            {"bytes_out", after.file_bytes},
            {"parameters_in", before.total.parameters},
            {"parameters_out", after.total.parameters},
            {"mask_bytes", result.mask_bytes},
            {"active_bytes_in", before.total.active_bytes},
            {"active_bytes_out", after.total.active_bytes},
            {"seconds", seconds},
            {"resumed_layers", result.resumed_layers},
            {"peak_rss", peak_resident_bytes()},
            {"notes", result.notes},
            {"passed_through", result.passed_through},
            {"steps", std::move(steps)},
            {"modules", result.slimmed}};
  }

  std::string summary(slimtrim::plan const& plan, slimtrim::inspection const& before, slimtrim::inspection const& after,
                      double seconds) const {
    table sizes({"", "bytes", "active bytes", "parameters"});
    auto const row = [&](std::string const& label, slimtrim::inspection const& of) {
      sizes.add({label, bytes_text(static_cast<double>(of.file_bytes)),
                 bytes_text(static_cast<double>(of.total.active_bytes)),
                 count_text(static_cast<double>(of.total.parameters))});
    };
    row("before", before);
    row("after", after);
    double const share = static_cast<double>(after.file_bytes) / static_cast<double>(before.file_bytes);
    return plan.recipe + "\n\n" + sizes.text() + "\n" + out_ + ": " + number_text(100 * share, 3) + " % of the bytes, in " +
           duration_text(seconds) + ", peak memory " + bytes_text(static_cast<double>(peak_resident_bytes())) + "\n";
  }

  std::string model_;
  std::string out_;
  std::string plan_;
  std::string format_;
  bool masks_ = false;
  bool resume_ = false;
  std::uint64_t shard_bytes_ = 5'000'000'000;
  decide_flags flags_;
  device_flags device_;
  memory_flags memory_;
};

}  // namespace

std::unique_ptr<command> make_compress_command() { return std::make_unique<compress_command>(); }

}  // namespace cli
