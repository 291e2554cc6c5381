// slimtrim convert, from file to file.
#include <slimtrim/io/json.hpp>

#include <support/program.hpp>

#include <doctest/doctest.h>

#include <string>

namespace cli_convert_test {

namespace {

std::string const tiny = SLIMTRIM_SOURCE_DIR "/examples/models/tiny-mixtral";

}  // namespace

TEST_CASE("convert writes GGUF and folders, the same for any number of threads, and never over something") {
  temporary_folder const folder;
  auto const at = [&](std::string const& name) { return (folder.path() / name).string(); };
  finished_run const one =
      run_program({"convert", tiny, at("a.gguf"), "--format", "gguf", "--type", "q8_0", "--threads", "1", "--json"});
  REQUIRE_MESSAGE(one.code == 0, one.err);
  slimtrim::ordered_json const json = slimtrim::parse_json(one.out, "stdout");
  CHECK(json["bytes_out"] == std::filesystem::file_size(folder.path() / "a.gguf"));
  CHECK(json["types"]["Q8_0"] == 8 * 7 + 2);
  CHECK(json["types"]["F32"] == 8 * 3 + 1);
  CHECK(run_program({"convert", tiny, at("b.gguf"), "--format", "gguf", "--type", "q8_0", "--threads", "3"}).code == 0);
  CHECK((folder.read("a.gguf") == folder.read("b.gguf")));
  finished_run const again = run_program({"convert", tiny, at("a.gguf"), "--format", "gguf"});
  CHECK(again.code == 3);
  CHECK(is_complaint(again.err));

  REQUIRE(run_program({"compress", tiny, at("four"), "--recipe", "rtn:4g32", "--format", "gptq"}).code == 0);
  CHECK(run_program({"convert", at("four"), at("ct"), "--format", "compressed-tensors"}).code == 0);
  CHECK(run_program({"convert", at("four"), at("dense"), "--format", "bf16"}).code == 0);
  CHECK(run_program({"inspect", at("ct")}).code == 0);
  CHECK(run_program({"inspect", at("dense")}).code == 0);
  // What one command refuses leaves nothing behind.
  finished_run const dense = run_program({"convert", tiny, at("x"), "--format", "awq"});
  CHECK(dense.code == 2);
  CHECK(is_complaint(dense.err));
  CHECK_FALSE(std::filesystem::exists(folder.path() / "x"));
  CHECK_FALSE(std::filesystem::exists(folder.path() / "x.partial"));
}

}  // namespace cli_convert_test
