// slimtrim synth, inspect and recipe: files and reports.
#include <slimtrim/io/json.hpp>

#include <support/program.hpp>

#include <doctest/doctest.h>

#include <string>

namespace cli_synth_test {

using slimtrim::ordered_json;
using slimtrim::parse_json;

TEST_CASE("the same bytes for any number of threads") {
  temporary_folder folder;
  std::string const a = (folder.path() / "a").string(), b = (folder.path() / "b").string();
  CHECK(run_program({"synth", a, "--family", "deepseek", "--layers", "3", "--threads", "1"}).code == 0);
  CHECK(run_program({"synth", b, "--family", "deepseek", "--layers", "3"}, {{"OMP_NUM_THREADS", "3,2"}}).code == 0);
  for (auto const& item : std::filesystem::directory_iterator(a)) {
    std::string const name = item.path().filename().string();
    CHECK_MESSAGE(folder.read("a/" + name) == folder.read("b/" + name), name);
  }
  finished_run const seen = run_program({"inspect", a});
  CHECK(seen.code == 0);
  CHECK(seen.out.rfind("deepseek, 3 layers, experts 8, top-k 2", 0) == 0);
}

TEST_CASE("JSON has the promised keys and nothing else on stdout") {
  temporary_folder folder;
  std::string const a = (folder.path() / "a").string();
  finished_run const made = run_program({"synth", a, "--layers", "2", "--json"});
  CHECK(parse_json(made.out, "stdout")["files"] == 1);
  finished_run const run = run_program({"inspect", a, "--json"});
  ordered_json const json = parse_json(run.out, "stdout");
  for (char const* const key : {"family", "layers", "experts", "top_k", "parameters", "active_parameters", "bytes",
                                "active_bytes", "layers_detail"})
    CHECK_MESSAGE(json.contains(key), key);
  CHECK(json["bytes"] == std::filesystem::file_size(a + "/model.safetensors"));
  finished_run const recipe = run_program({"recipe", "mixtral-l8-awq", "--json"});
  CHECK(parse_json(recipe.out, "stdout")["recipe"] == "layer_drop:8+awq:4g128");
}

TEST_CASE("the bundled model") {
  finished_run const run = run_program({"inspect", SLIMTRIM_SOURCE_DIR "/examples/models/tiny-mixtral", "--json"});
  ordered_json const json = parse_json(run.out, "stdout");
  CHECK(json["family"] == "mixtral");
  CHECK(json["layers"] == 8);
  CHECK(json["experts"] == 8);
  CHECK(json["bytes"] == 14468656);
}

TEST_CASE("a damaged checkpoint is refused with one line") {
  temporary_folder folder;
  std::string const a = (folder.path() / "a").string();
  REQUIRE(run_program({"synth", a, "--layers", "1", "--hidden", "32", "--intermediate", "32"}).code == 0);
  std::string const whole = folder.read("a/model.safetensors");
  for (std::size_t const size : {std::size_t{0}, std::size_t{7}, std::size_t{100}, whole.size() - 1}) {
    folder.write("a/model.safetensors", whole.substr(0, size));
    finished_run const run = run_program({"inspect", a});
    CHECK(run.code == 3);
    CHECK(is_complaint(run.err));
  }
  folder.write("a/model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
  CHECK(run_program({"inspect", a}).code == 3);
  folder.write("a/model.safetensors", whole);
  folder.write("a/config.json", "{\"model_type\": \"gpt2\"}");
  finished_run const family = run_program({"inspect", a});
  CHECK(family.code == 3);
  CHECK(family.err.find("'model_type': expected one of") != std::string::npos);
}

}  // namespace cli_synth_test
