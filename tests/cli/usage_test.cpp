// The command line: help, versions, mistakes, exit codes, signals, closed and full outputs.
#include <slimtrim/core/config.hpp>

#include <support/program.hpp>

#include <doctest/doctest.h>

#include <sys/resource.h>

#include <string>
#include <vector>

namespace cli_usage_test {

namespace {

bool has(std::string const& text, std::string const& part) { return text.find(part) != std::string::npos; }

// Large enough to be still at work when the signal comes.
std::vector<std::string> long_synth(std::string const& out) {
  return {"synth", out, "--hidden", "1024", "--intermediate", "4096", "--layers", "60", "--shard-size", "200MB"};
}

}  // namespace

TEST_CASE("help and version go to stdout") {
  finished_run const help = run_program({"--help"});
  CHECK(help.code == 0);
  CHECK(help.err.empty());
  CHECK(has(help.out, "Exit codes: 0 done"));
  CHECK(run_program({"--version"}).out == "slimtrim " SLIMTRIM_VERSION_STRING "\n");
  for (char const* const command : {"inspect", "calibrate", "stats", "plan", "compress", "convert", "eval", "generate", "bench", "recipe", "synth"}) {
    finished_run const one = run_program({command, "--help"});
    CHECK(one.code == 0);
    CHECK_MESSAGE(has(one.out, "Examples:"), command);
    CHECK(has(one.out, "--threads"));
    CHECK(has(help.out, command));
  }
}

TEST_CASE("a wrong line is exit code 2 and one line on stderr") {
  std::vector<std::vector<std::string>> const lines{
      {}, {"frob"}, {"inspect"}, {"synth"}, {"synth", "x", "--layers", "many"}, {"synth", "x", "--frob"},
      {"synth", "x", "--layers", "1", "--layers", "2"}, {"recipe", "rtn:5"}, {"synth", "x", "--threads", "0"},
      {"synth", "x", "--seed", "-1"}, {"synth", "x", "--shard-size", "5 parsecs"}, {"synth", "x", "--top-k", "9"},
      {"synth", "x", "--identity-layers", "1,,2"}, {"inspect", "a", "b"}, {"convert", "a", "b"},
      {"convert", "a", "b", "--format", "gguf", "--type", "q3"}, {"convert", "a", "b", "--format", "bf16", "--type", "f16"}};
  for (auto const& line : lines) {
    finished_run const run = run_program(line);
    CHECK_MESSAGE(run.code == 2, run.err);
    CHECK_MESSAGE(is_complaint(run.err), run.err);
    CHECK(run.out.empty());
  }
  CHECK(has(run_program({"frob"}).err, "found 'frob'"));
  CHECK(has(run_program({"synth"}).err, "see slimtrim synth --help"));
}

TEST_CASE("missing and existing things are exit code 3") {
  temporary_folder folder;
  finished_run const run = run_program({"inspect", "/no/such/model"});
  CHECK(run.code == 3);
  CHECK(is_complaint(run.err));
  CHECK(run_program({"recipe", "absent.toml"}).code == 3);
  CHECK(run_program({"synth", folder.path().string()}).code == 3);
  CHECK(run_program({"synth", (folder.path() / "no" / "where").string()}).code == 3);
}

TEST_CASE("results that cannot be written are exit code 4") {
  finished_run const run = run_program({"recipe", "recover"}, {}, "/dev/full");
  CHECK(run.code == 4);
  CHECK(is_complaint(run.err));
}

TEST_CASE("a file that may not grow is exit code 4, and nothing is left") {
  temporary_folder folder;
  struct rlimit before {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  struct rlimit const small {1 << 20, before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  finished_run const run = run_program({"synth", (folder.path() / "a").string(), "--quiet"});
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  CHECK(run.code == 4);
  CHECK(is_complaint(run.err));
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("recipe refuses what compress refuses") {
  for (std::string const& recipe : {std::string("rtn:4g128+rtn:8"), std::string("layer_drop:2@consecutive"),
                                    std::string("[[step]]\nmethod = \"gptq:4\"\ntargets = [\"lm_head\"]")}) {
    CAPTURE(recipe);
    finished_run const checked = run_program({"recipe", recipe});
    CHECK(checked.code == 2);
    CHECK(is_complaint(checked.err));
    CHECK(run_program({"compress", SLIMTRIM_SOURCE_DIR "/examples/models/tiny-mixtral", "/tmp/absent", "--recipe", recipe}).err == checked.err);
  }
}

TEST_CASE("signals end a run cleanly") {
  for (int const number : {SIGINT, SIGTERM}) {
    temporary_folder folder;
    std::string const out = (folder.path() / "big").string();
    running_program run(long_synth(out));
    REQUIRE(running_program::appears(out + ".partial"));
    run.send(number);
    finished_run const end = run.wait();
    CHECK(end.code == 128 + number);
    CHECK(has(end.err, "slimtrim: interrupted\n"));
    CHECK(std::filesystem::is_empty(folder.path()));
  }
}

TEST_CASE("progress is plain without a terminal, with a first and a last line and its unit, and absent when quiet") {
  temporary_folder folder;
  finished_run const run = run_program({"synth", (folder.path() / "a").string(), "--layers", "1", "--hidden", "32", "--intermediate", "32",
                                        "--vocab", "300", "--heads", "4"});
  CHECK(run.code == 0);
  CHECK(run.err == "slimtrim: synthesize: 0 % (0 of 48224 parameters)\nslimtrim: synthesize: 100 % (48224 of 48224 parameters)\n");
  finished_run const quiet = run_program({"synth", (folder.path() / "b").string(), "--layers", "1", "--quiet"});
  CHECK(quiet.err.empty());
}

}  // namespace cli_usage_test
