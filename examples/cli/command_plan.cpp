// slimtrim plan: decide, price and check, without writing a model.

#include "command.hpp"
#include "deciding.hpp"
#include "document.hpp"
#include "table.hpp"

#include <slimtrim/io/atomic_file.hpp>
#include <slimtrim/pipeline/plan_file.hpp>
#include <slimtrim/pipeline/price.hpp>
#include <slimtrim/pipeline/statistics_file.hpp>

#include <optional>

namespace cli {

namespace {

class plan_command final : public command {
 public:
  std::string name() const override { return "plan"; }
  std::string summary() const override { return "Decide and price what a recipe would do, or find the best one for a size"; }
  std::string examples() const override {
    return "The plan is JSON: it can be read, edited and given to compress --plan. Layers and experts have the numbers\n"
           "of MODEL. Bytes are those of the safetensors files that compress would write.\n"
           "With a target instead of a recipe, plan searches over drops of blocks, layers, experts and neurons and over bits of\n"
           "each class of matrices, layer by layer, for the least measured KL; the last windows of --data measure, the others\n"
           "decide and calibrate. The result depends on the clock only where --search-seconds cuts the search. Steps that work on\n"
           "tokens are priced without text; compress --plan then wants --data.\n"
           "Examples:\n"
           "  slimtrim plan mixtral --stats c4.stats --recipe layer_drop:8+rtn:4g128 -o l8.json\n"
           "  slimtrim plan mixtral --stats c4.stats --recipe expert_drop:6/8@global_reap_residual -o e6.json --json\n"
           "  slimtrim plan mixtral --data c4.jsonl --tokens 65536 --target-ratio 0.22 -o best.json --json > best.search.json";
  }
  void declare(option_set& options) override {
    options.positional("MODEL", model_, "Model folder");
    flags_.declare(options);
    options.bytes("--target-bytes", target_bytes_, "Instead of --recipe: find the best one of at most this size, such as 20GB");
    options.real("--target-ratio", target_ratio_, "The same as a share of MODEL's bytes, above 0 and at most 1, such as 0.22");
    options.bytes("--target-active-bytes", target_active_bytes_, "The same for the bytes that one token reads");
    options.real("--search-seconds", search_.seconds, "Longest time of a search, in seconds; what is best by then is taken");
    options.numbers("--search-bits", search_bits_, "Numbers of bits to choose from besides 16 [2,3,4,8]");
    options.flag("--quantise-ends", search_.quantise_ends, "Let the search quantise head and embedding too (few engines load that)");
    options.text("-o,--output", out_, "Plan to create; must not exist", true);
    options.text("--format", format_, "Of packed weights: compressed-tensors, awq or gptq [the input's, else the first]");
    device_.declare(options);
    memory_.declare(options);
  }
  void run(session const& at) override {
    engine const run(at, device_, memory_);
    slimtrim::opened_model const model = slimtrim::open_model(model_);
    slimtrim::check_new_output(out_, {model.files->folder()});
    slimtrim::inspection const before = slimtrim::inspect(*model.files, model.config);
    std::optional<slimtrim::search_result> found;
    decided made;
    if (target_bytes_ || target_ratio_ || target_active_bytes_) {
      found = search(at, run, model, before);
      made.plan = found->plan;
    } else {
      if (flags_.recipe.empty())
        throw slimtrim::usage_error("expected --recipe, or a target: --target-bytes, --target-ratio or --target-active-bytes");
      made = decide_plan(at, run, model, flags_, false);
    }
    slimtrim::inspection const after = slimtrim::price(model, made.plan, format_);
    slimtrim::ordered_json const document = slimtrim::plan_json(made.plan);
    slimtrim::write_file_atomically(out_, slimtrim::json_text(document), {model.files->folder()});
    note_loaders(at, model, made.plan, format_);
    if (std::any_of(made.plan.slimming.begin(), made.plan.slimming.end(), slimtrim::needs_data))
      at.note("slimtrim: carrying it out takes calibration text: slimtrim compress --plan " + out_ + " --data ...");
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
      if (found) add_search(json, *found);
      print_document(at, "plan", json);
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
    if (found) at.print("\n" + front(*found));
  }

 private:
  [[nodiscard]] slimtrim::search_result search(session const& at, engine const& run, slimtrim::opened_model const& model,
                                               slimtrim::inspection const& before) {
    using slimtrim::usage_error;
    if (!flags_.recipe.empty()) throw usage_error("expected --recipe or a target, found both");
    if (model.format)
      throw slimtrim::input_error(model.files->place(), "is packed already, and a search chooses bits anew: expected the model as it was before");
    if (!format_.empty() && format_ != "compressed-tensors")
      throw usage_error("--format: expected compressed-tensors with a target (it alone holds bits that differ), found '" + format_ + "'");
    if (target_bytes_.has_value() + target_ratio_.has_value() + target_active_bytes_.has_value() != 1)
      throw usage_error("expected one of --target-bytes, --target-ratio and --target-active-bytes");
    if (target_ratio_ && !(*target_ratio_ > 0 && *target_ratio_ <= 1)) throw usage_error("--target-ratio: expected a share above 0, at most 1");
    if (flags_.data.data.empty()) throw usage_error("a target: is met by measuring: expected --data");
    if (!(search_.seconds > 0)) throw usage_error("--search-seconds: expected more than 0");
    search_.bits.clear();
    for (index_t const bits : search_bits_) {
      if (bits != 2 && bits != 3 && bits != 4 && bits != 8) throw usage_error("--search-bits: expected 2, 3, 4 or 8, found " + std::to_string(bits));
      search_.bits.push_back(static_cast<int>(bits));
    }
    if (target_bytes_) search_.target = *target_bytes_;
    if (target_ratio_) search_.target = static_cast<std::uint64_t>(*target_ratio_ * static_cast<double>(before.file_bytes));
    if (target_active_bytes_) {
      search_.goal = slimtrim::size_goal::active_bytes;
      search_.target = *target_active_bytes_;
    }
    search_.uniform = flags_.uniform;
    search_.progress = at.progress;
    std::optional<slimtrim::model_statistics> statistics;
    if (!flags_.statistics.empty()) statistics = slimtrim::load_statistics(flags_.statistics, model.config);
    slimtrim::token_windows const windows = run.windows(model, flags_.data);
    slimtrim::search_result result = run.search(model, statistics ? &*statistics : nullptr, windows, search_);
    if (result.cut_short)
      at.note("slimtrim: --search-seconds cut the search: another run may find another recipe");
    return result;
  }

  // The steps in a line; bits that differ between layers and classes are in the recipe's TOML only.
  static std::string short_steps(slimtrim::searched_recipe const& seen) {
    std::string text;
    for (slimtrim::step const& s : seen.steps.steps) {
      std::string one = slimtrim::short_form(s);
      if (!s.targets.empty() && s.layers.empty()) one += " on " + s.targets.front();
      if (!s.targets.empty() && !s.layers.empty()) one += " on " + s.targets.front() + " of " + std::to_string(s.layers.size()) + " layers";
      text += (text.empty() ? "" : "+") + one;
    }
    return text;
  }
  static slimtrim::ordered_json point(slimtrim::searched_recipe const& seen) {
    return {{"recipe", seen.steps.text}, {"steps", short_steps(seen)}, {"bytes", seen.bytes}, {"active_bytes", seen.active_bytes}, {"kl", seen.kl}, {"predicted", seen.predicted}};
  }
  static void add_search(slimtrim::ordered_json& json, slimtrim::search_result const& found) {
    json["kl"] = found.best.kl;
    json["front"] = slimtrim::ordered_json::array();
    for (slimtrim::searched_recipe const& seen : found.front) json["front"].push_back(point(seen));
    json["why"] = found.why;
    json["evaluations"] = found.evaluations;
    json["recipes_measured"] = found.recipes;
    json["cut_short"] = found.cut_short;
  }
  static std::string front(slimtrim::search_result const& found) {
    table points({"bytes", "active bytes", "KL", "recipe"});
    for (slimtrim::searched_recipe const& seen : found.front) {
      points.add({bytes_text(static_cast<double>(seen.bytes)), bytes_text(static_cast<double>(seen.active_bytes)), number_text(seen.kl), short_steps(seen)});
    }
    return "Best recipes seen (KL on the held-out windows):\n" + points.text();
  }

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
          std::string constant, merged;
          for (slimtrim::novice const& each : kept.novices) constant += " " + std::to_string(each.expert);
          for (slimtrim::merge_group const& each : kept.merges) {
            merged += " ";
            for (std::size_t m = 0; m < each.members.size(); ++m) merged += (m == 0 ? "" : "+") + std::to_string(each.members[m]);
          }
          if (!constant.empty()) gone += (gone.empty() ? "" : ", ") + ("weights of novices" + constant);
          if (!merged.empty()) gone += (gone.empty() ? "" : ", ") + ("merged:" + merged);
          if (!kept.neurons.empty())
            gone += (gone.empty() ? "" : ", ") + ("neurons: " + std::to_string(kept.neurons.begin()->second.size()) + " of " +
                                                  std::to_string(config.layer(i).intermediate) + " stay");
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
  std::optional<std::uint64_t> target_bytes_;
  std::optional<double> target_ratio_;
  std::optional<std::uint64_t> target_active_bytes_;
  std::vector<index_t> search_bits_{2, 3, 4, 8};
  slimtrim::search_options search_{};
  decide_flags flags_;
  device_flags device_;
  memory_flags memory_;
};

}  // namespace

std::unique_ptr<command> make_plan_command() { return std::make_unique<plan_command>(); }

}  // namespace cli
