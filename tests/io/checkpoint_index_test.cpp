#include "temporary_folder.hpp"

#include <slimtrim/io/checkpoint_index.hpp>

#include <doctest/doctest.h>

#include <string>

namespace io_checkpoint_index_test {

using namespace io_test;
using namespace slimtrim;

namespace {
checkpoint_index index_of(temporary_folder const& folder, std::string const& text) {
  put(folder / "index.json", text);
  return read_checkpoint_index(input_file::open(folder / "index.json"));
}
}  // namespace

TEST_CASE("entries and shards come out sorted, other keys are stepped over") {
  temporary_folder const folder;
  auto const index = index_of(folder, R"({"extra":[{"weight_map":{"z":1}}],"weight_map":{"b":"2.st","a":"1.st","c":"1.st"},
      "metadata":{"total_size":77,"note":{"total_size":1}}})");
  CHECK(index.shards == std::vector<std::string>{"1.st", "2.st"});
  REQUIRE(index.entries.size() == 3);
  CHECK(index.entries[0] == std::pair<std::string, std::uint32_t>("a", 0));
  CHECK(index.entries[1] == std::pair<std::string, std::uint32_t>("b", 1));
  CHECK(index.total_size == 77);
  CHECK_FALSE(index_of(folder, R"({"weight_map":{},"metadata":{"total_size":7.5}})").total_size);
}

TEST_CASE("what is not an index is refused with the tensor") {
  temporary_folder const folder;
  for (char const* text : {"", "[]", "{}", "7", R"({"weight_map":[]})", R"({"weight_map":7})", R"({"weight_map":{"a":7}})",
                           R"({"weight_map":{"a":["1"]}})", R"({"weight_map":{"a":{"b":"c"}}})",
                           R"({"weight_map":{"a":null}})", R"({"weight_map":{"a":"../b"}})",
                           R"({"weight_map":{"a":"1","a":"1"}})", R"({"weight_map":{},"weight_map":{}})",
                           R"({"weight_map":{"a":"1"}} )" "x"}) {
    CAPTURE(text);
    CHECK_THROWS_AS((void)index_of(folder, text), input_error);
  }
  CHECK(has(message_of([&] { (void)index_of(folder, "{\"a\":" + std::string(1'000'000, '[')); }), "nesting"));
  CHECK(has(message_of([&] { (void)index_of(folder, "version https://git-lfs.github.com/spec/v1\nsize 9\n"); }),
            "git-LFS"));
  CHECK(has(message_of([&] { (void)index_of(folder, R"({"weight_map":{"a\n":7}})"); }), "a\\x0a"));
}

}  // namespace io_checkpoint_index_test
