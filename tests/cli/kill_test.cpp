// Sudden death and long models: a killed compression leaves nothing under the final name, the next run cleans up, and
// memory does not grow with the weights of more layers.
#include <slimtrim/io/json.hpp>

#include <support/program.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <thread>

namespace cli_kill_test {

namespace {

void synth(std::string const& out, std::string const& layers) {
  finished_run const run = run_program({"synth", out, "--layers", layers, "--hidden", "256", "--intermediate", "896",
                                        "--vocab", "300", "--positions", "64", "-q"});
  REQUIRE_MESSAGE(run.code == 0, run.err);
}

}  // namespace

TEST_CASE("kill -9 at twenty moments") {
  temporary_folder folder;
  auto const path = [&](std::string const& name) { return (folder.path() / name).string(); };
  synth(path("m"), "6");
  using clock = std::chrono::steady_clock;
  auto const begin = clock::now();
  REQUIRE(run_program({"compress", path("m"), path("whole"), "--recipe", "rtn:4g128", "-q"}).code == 0);
  auto const whole = clock::now() - begin;
  std::string const expected = folder.read("whole/model.safetensors");
  int absent = 0;
  for (int moment = 0; moment < 20; ++moment) {
    {
      running_program run({"compress", path("m"), path("out"), "--recipe", "rtn:4g128", "-q"});
      std::this_thread::sleep_for(whole * moment / 19);
      run.send(SIGKILL);
    }
    if (!std::filesystem::exists(path("out"))) {
      ++absent;
      continue;
    }
    CHECK(folder.read("out/model.safetensors") == expected);
    CHECK(folder.read("out/config.json") == folder.read("whole/config.json"));
    std::filesystem::remove_all(path("out"));
  }
  CHECK(absent > 0);
  // What the last killed run left is no obstacle.
  CHECK(run_program({"compress", path("m"), path("out"), "--recipe", "rtn:4g128", "-q"}).code == 0);
  CHECK(folder.read("out/model.safetensors") == expected);
  CHECK_FALSE(std::filesystem::exists(path("out.partial")));
}

TEST_CASE("memory does not grow with layers") {
  temporary_folder folder;
  auto const path = [&](std::string const& name) { return (folder.path() / name).string(); };
  std::string ids;
  for (int i = 0; i < 512; ++i) ids += {static_cast<char>(i % 251), '\0'};
  std::string const data = folder.write("a.u16", ids).string();
  auto const peak = [&](std::string const& layers) {
    synth(path(layers), layers);
    finished_run const run = run_program({"compress", path(layers), path(layers + "out"), "--recipe",
                                          "layer_drop:2+rtn:4g128", "--data", data, "--seq", "64", "--json", "-q"});
    REQUIRE_MESSAGE(run.code == 0, run.err);
    return slimtrim::parse_json(run.out, "stdout")["peak_rss"].get<double>();
  };
  double const few = peak("4"), many = peak("16");
  MESSAGE("peak of 4 layers ", few, ", of 16 layers ", many);
  // Twelve more layers of 11.5 MB of weights may cost their statistics and tensor names, not one layer's weights.
#if !defined(__SANITIZE_ADDRESS__)  // which keeps freed memory for a while
  CHECK(many < few + 11.5e6);
#endif
}

}  // namespace cli_kill_test
