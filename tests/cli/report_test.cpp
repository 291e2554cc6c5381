// slimtrim report: what is written, and that nothing is where something is refused.
#include <slimtrim/io/json.hpp>

#include <support/program.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace cli_report_test {

namespace {

std::string const tiny = SLIMTRIM_SOURCE_DIR "/examples/models/tiny-mixtral";

}  // namespace

TEST_CASE("every document names its command first, and report takes those that it knows") {
  temporary_folder folder;
  auto const at = [&](std::string const& name) { return (folder.path() / name).string(); };
  std::filesystem::create_directory(folder.path() / "results");
  auto const document = [&](std::vector<std::string> arguments, std::string const& command) {
    arguments.push_back("--json");
    finished_run const run = run_program(arguments);
    REQUIRE_MESSAGE(run.code == 0, run.err);
    CHECK_MESSAGE(run.out.rfind("{\n  \"command\": \"" + command + "\",\n", 0) == 0, run.out);
    return run.out;
  };
  std::vector<std::string> const data{"--data", "self", "--seq", "16", "--tokens", "32"};
  auto const with_data = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), data.begin(), data.end());
    return arguments;
  };
  folder.write("results/base.inspect.json", document({"inspect", tiny}, "inspect"));
  static_cast<void>(document(with_data({"calibrate", tiny, "-o", at("statistics")}), "calibrate"));
  folder.write("results/base.stats.json", document({"stats", "show", at("statistics")}, "stats show"));
  folder.write("results/small.plan.json",
               document({"plan", tiny, "--recipe", "layer_drop:2", "--stats", at("statistics"), "-o", at("plan.json")}, "plan"));
  folder.write("results/small.compress.json", document({"compress", tiny, at("small"), "--plan", at("plan.json")}, "compress"));
  folder.write("results/small.convert.json", document({"convert", at("small"), at("again"), "--format", "bf16"}, "convert"));
  folder.write("results/small.eval.json", document(with_data({"eval", at("small"), "--base", tiny}), "eval"));
  folder.write("results/small.bench.json", document({"bench", at("small"), "--prefill", "4", "--decode", "2", "--rounds", "1"}, "bench"));
  static_cast<void>(document({"generate", at("small"), "--prompt", "a", "--length", "2"}, "generate"));
  static_cast<void>(document({"recipe", "rtn:4"}, "recipe"));

  std::string const made = document({"report", at("results"), "-o", at("report.html"), "--figure", at("map.svg")}, "report");
  CHECK(slimtrim::parse_json(made, "stdout")["models"] == 2);
  // The size is what compress made, not what convert was given.
  CHECK(folder.read("report.html").find("<td>small</td><td><code>layer_drop:2</code></td><td>11.31 MB</td>") != std::string::npos);
  CHECK(folder.read("map.svg").find("crossed out: dropped by layer_drop:2") != std::string::npos);

  // Where one of the two outputs cannot be, neither is written.
  auto const refused = [&](std::string const& figure, int code) {
    finished_run const run = run_program({"report", at("results"), "-o", at("second.html"), "--figure", figure});
    CHECK_MESSAGE(run.code == code, run.err);
    CHECK(is_complaint(run.err));
    CHECK_FALSE(std::filesystem::exists(at("second.html")));
  };
  refused(at("map.svg"), 3);
  refused(at("absent/map.svg"), 3);
  refused(at("second.html"), 2);
  std::filesystem::remove(folder.path() / "results" / "base.stats.json");
  refused(at("second.svg"), 3);
}

}  // namespace cli_report_test
