// slimtrim recipe: checks a recipe and says what its steps need.

#include "command.hpp"
#include "document.hpp"
#include "table.hpp"

#include <slimtrim/io/json.hpp>
#include <slimtrim/pipeline/recipe_toml.hpp>

namespace cli {

namespace {

// The criterion that decides, named or not.
std::string criterion_text(slimtrim::step const& s) {
  return s.criterion.empty() ? "" : (s.global ? "global_" : "") + s.criterion;
}

char const* need_text(slimtrim::step const& s) {
  switch (slimtrim::requirement_of(s)) {
    case slimtrim::requirement::weights: return "weights";
    case slimtrim::requirement::statistics: return "statistics";
    case slimtrim::requirement::tokens: break;
  }
  return "tokens";
}

class recipe_command final : public command {
 public:
  std::string name() const override { return "recipe"; }
  std::string summary() const override { return "Check a recipe and show its steps and what they need"; }
  std::string examples() const override {
    std::string text =
        "RECIPE is a built-in name, a TOML file with [[step]] tables, or steps method:amount[@criterion] joined by +.\n"
        "  layer_drop:N  block_drop:N  attention_drop:N      how many go\n"
        "  expert_drop:K/E  expert_merge:K/E  novice:K/E     experts kept, of the model's E\n"
        "  neuron_drop:W                                     width of an expert that is kept\n"
        "  recover                                           closed-form repair of what is left\n"
        "  rtn:4g128  gptq:4g128  awq:4g128                  bits and group; z zero points, s symmetric, m searched\n"
        "  magnitude:50%  wanda:2:4  sparsegpt:50%           weights that become zero, or kept:group\n"
        "Criteria, after @. layers and blocks: cosine, cosine_without_norm, angular, greedy, greedy_kl, exhaustive_kl,\n"
        "  consecutive, random;\n"
        "  experts: reap, reap_renormalised, reap_raw, reap_residual, router_probability, topk_weight, frequency,\n"
        "  weighted_frequency, ean, man, msan, easy_ep, hope, mone, aimer, random, reconstruction, reconstruction_kl, and\n"
        "  global_ before any of them to pool the layers;\n"
        "  merges: average, hc_smoe, ream; neurons: heapr, random.\n"
        "Without one: cosine, reap, mone, average, heapr; @global is global_reap_residual, which keeps a model far closer than reap\n"
        "does (docs/benchmarks.md) and lets layers keep different numbers of experts.\n"
        "TOML only: targets, layers, protect_first, protect_last, protect_super_experts, bits, group, scale, scales, order, descent,\n"
        "  fit, ridges, sequential, affinity.\n"
        "Needs: weights: nothing else; statistics: --stats or --data; tokens: --data.\n"
        "Built-in: ";
    std::string names;
    for (slimtrim::built_in_recipe const& known : slimtrim::built_in_recipes)
      names += (names.empty() ? "" : ", ") + std::string(known.name);
    return text + names +
           "\nAll of it: docs/recipes.md.\nExamples:\n"
           "  slimtrim recipe layer_drop:8+awq:4g128\n"
           "  slimtrim recipe mine.toml --json";
  }
  void declare(option_set& options) override { options.positional("RECIPE", recipe_, "Name, steps or TOML file"); }
  void run(session const& at) override {
    slimtrim::recipe const read = slimtrim::load_recipe(recipe_);
    if (at.json) {
      slimtrim::ordered_json steps = slimtrim::ordered_json::array();
      for (slimtrim::step const& s : read.steps)
        steps.push_back({{"step", slimtrim::short_form(s)},
                         {"kind", slimtrim::is_trim(s) ? "trim" : (slimtrim::is_slim(s) ? "slim" : "recover")},
                         {"criterion", criterion_text(s)},
                         {"needs", need_text(s)},
                         {"toml", slimtrim::to_toml(s)}});
      print_document(at, "recipe", {{"recipe", slimtrim::to_string(read)}, {"steps", std::move(steps)}});
      return;
    }
    table steps({"step", "kind", "criterion", "needs", "more"});
    for (slimtrim::step const& s : read.steps) {
      std::string more;
      for (std::string const& line : slimtrim::long_form_lines(s)) more += (more.empty() ? "" : "; ") + line;
      steps.add({slimtrim::short_form(s), slimtrim::is_trim(s) ? "trim" : (slimtrim::is_slim(s) ? "slim" : "recover"),
                 criterion_text(s), need_text(s), more});
    }
    at.print(steps.text());
  }

 private:
  std::string recipe_;
};

}  // namespace

std::unique_ptr<command> make_recipe_command() { return std::make_unique<recipe_command>(); }

}  // namespace cli
