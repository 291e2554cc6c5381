#include "temporary_folder.hpp"

#include <slimtrim/io/input_file.hpp>

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>
#include <span>
#include <string>

namespace io_input_file_test {

using namespace io_test;
using namespace slimtrim;

TEST_CASE("reads are exact and stay inside") {
  temporary_folder const folder;
  put(folder / "x", "0123456789");
  input_file const file = input_file::open(folder / "x");
  CHECK(file.size() == 10);
  std::array<std::byte, 4> four{};
  file.read_at(6, four);
  CHECK(std::to_integer<char>(four[3]) == '9');
  CHECK_THROWS_AS(file.read_at(7, four), input_error);
  CHECK_THROWS_AS(file.read_at(~std::uint64_t{0}, four), input_error);
  file.read_at(10, std::span(four).first(0));
}

TEST_CASE("only regular files are opened") {
  temporary_folder const folder;
  CHECK_THROWS_AS((void)input_file::open(folder / "nothing"), input_error);
  CHECK(has(message_of([&] { (void)input_file::open(folder.path()); }), "found a folder"));
  CHECK(has(message_of([] { (void)input_file::open("/dev/zero"); }), "found a device"));
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(has(message_of([&] { (void)input_file::open(folder / "pipe"); }), "found a pipe"));
  put(folder / "x", "1");
  CHECK_THROWS_AS((void)input_file::open(folder / "x" / "y"), input_error);
}

TEST_CASE("changes of size, time and identity are noticed") {
  temporary_folder const folder;
  auto const path = folder / "x";
  put(path, "0123456789");
  input_file const file = input_file::open(path);
  CHECK(file.unchanged());
  std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::seconds(2));
  CHECK_FALSE(file.unchanged());
  input_file const again = input_file::open(path);
  put(folder / "y", "0123456789");
  std::filesystem::rename(folder / "y", path);
  CHECK_FALSE(again.unchanged());
  CHECK_THROWS_AS(again.require_unchanged(), input_error);
}

TEST_CASE("a read past an end that moved is an error") {
  temporary_folder const folder;
  put(folder / "x", "0123456789");
  input_file const file = input_file::open(folder / "x");
  std::filesystem::resize_file(folder / "x", 5);
  std::array<std::byte, 10> ten{};
  CHECK(has(message_of([&] { file.read_at(0, ten); }), "changed while it was read"));
}

TEST_CASE("plain file names") {
  CHECK(is_plain_file_name("model-00001-of-00002.safetensors"));
  CHECK(is_plain_file_name(".hidden"));
  for (std::string const& name : {std::string(), std::string("."), std::string(".."), std::string("a/b"),
                                  std::string("/a"), std::string("a\\b"), std::string("a\0b", 3), std::string("a\n"),
                                  std::string("\xFF"), std::string(256, 'a')})
    CHECK_FALSE(is_plain_file_name(name));
}

TEST_CASE("names from a file are opened inside their folder only") {
  temporary_folder const folder;
  std::filesystem::create_directory(folder / "in");
  put(folder / "in" / "a", "1");
  put(folder / "out", "2");
  std::filesystem::create_symlink("a", folder / "in" / "inner");
  std::filesystem::create_symlink("../out", folder / "in" / "outer");
  CHECK(input_file::open_inside(folder / "in", "a").size() == 1);
  CHECK(input_file::open_inside(folder / "in", "inner").path() == folder / "in" / "inner");
  CHECK_THROWS_AS((void)input_file::open_inside(folder / "in", "outer"), input_error);
  CHECK_THROWS_AS((void)input_file::open_inside(folder / "in", "../out"), input_error);
  CHECK_THROWS_AS((void)input_file::open_inside(folder / "in", "nothing"), input_error);
}

}  // namespace io_input_file_test
