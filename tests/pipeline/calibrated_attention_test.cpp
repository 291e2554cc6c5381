// The attention part in the calibrated pass: each matrix steered by its own input, output fitted where it writes.
#include <slimtrim/pipeline/calibrated_attention.hpp>

#include <pipeline/support.hpp>

#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <map>
#include <string>

namespace pipeline_calibrated_attention_test {

using namespace slimtrim;
using namespace pipeline_tests;

namespace {

std::map<std::string, ordered_json> reports(opened_model const& model, std::string const& recipe, std::string const& target,
                                            token_windows const& data) {
  plan p = slim_plan(model.config, recipe);
  for (step& s : p.slimming) s.targets = {target};
  std::map<std::string, ordered_json> result;
  slim_on_windows(model, p, data, [&](slimmed_module const& m, slim_result const& r) { result[m.stem] = r.report; });
  return result;
}

}  // namespace

TEST_CASE("query, key, value and output, on all tokens; only output is fitted") {
  temporary_folder const folder;
  write_synthetic(folder.path() / "m", {.layers = 2, .hidden = 32, .intermediate = 16, .experts = 4, .heads = 2, .vocabulary = 2048});
  opened_model const model = open_model(folder.path() / "m");
  token_windows const data = train_windows(8, 16);
  auto const all = reports(model, "gptq:3g16", "attention", data);
  CHECK(all.size() == 8);
  for (auto const& [name, report] : all) {
    CAPTURE(name);
    CHECK(report.at("tokens") == 128);
    CHECK(report.contains("fit") == (name.find("o_proj") != name.npos));
    CHECK(report.at("error").get<double>() <= report.at("error_rtn").get<double>());
  }
  // In the first layer nothing lacks before anything is slimmed; where query, key and value were rounded, something does.
  CHECK(all.at("model.layers.0.self_attn.o_proj").at("fit").at("residual").get<double>() > 0);
  auto const alone = reports(model, "gptq:3g16", "*o_proj*", data);
  CHECK(alone.size() == 2);
  CHECK(alone.at("model.layers.0.self_attn.o_proj").at("fit").at("residual").get<double>() == 0);
  CHECK_FALSE(alone.at("model.layers.0.self_attn.o_proj").at("fit").at("changed").get<bool>());
}

}  // namespace pipeline_calibrated_attention_test
