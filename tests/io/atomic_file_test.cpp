#include "temporary_folder.hpp"

#include <slimtrim/io/atomic_file.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <string>

namespace io_atomic_file_test {

using namespace io_test;
using namespace slimtrim;
namespace fs = std::filesystem;

TEST_CASE("the file appears complete at commit, or not at all") {
  temporary_folder const folder;
  {
    atomic_file target(folder / "x");
    target.open().write_at(0, as_byte_span("text"));
    CHECK_FALSE(fs::exists(folder / "x"));
    CHECK(has(message_of([&] { atomic_file const other(folder / "x"); }), "another process"));
    target.commit();
    CHECK_THROWS_AS(target.commit(), error);
  }
  CHECK(get(folder / "x") == "text");
  { atomic_file const target(folder / "y"); }
  CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 1);
}

TEST_CASE("existing files and places inside an input are refused") {
  temporary_folder const folder;
  put(folder / "x", "mine");
  CHECK_THROWS_AS(write_file_atomically(folder / "x", "new"), input_error);
  CHECK(get(folder / "x") == "mine");
  fs::create_directory(folder / "in");
  CHECK_THROWS_AS(write_file_atomically(folder / "in" / "x", "new", {folder / "in"}), input_error);
  CHECK_THROWS_AS(write_file_atomically(folder / "no" / "x", "new"), input_error);
  write_file_atomically(folder / "y", "new");
  CHECK(get(folder / "y") == "new");
}

TEST_CASE("what a killed run left is started over") {
  temporary_folder const folder;
  put(folder / ".x.slimtrim-partial", "a longer left-over");
  write_file_atomically(folder / "x", "new");
  CHECK(get(folder / "x") == "new");
  CHECK_FALSE(fs::exists(folder / ".x.slimtrim-partial"));
}

}  // namespace io_atomic_file_test
