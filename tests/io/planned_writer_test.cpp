#include "temporary_folder.hpp"

#include <slimtrim/io/planned_writer.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace io_planned_writer_test {

using namespace io_test;
using namespace slimtrim;

namespace {

// "head", a gap of two bytes, a: 4 bytes, b: 3, c: none, one byte behind all.
planned_layout small_layout() {
  planned_layout layout;
  layout.header = "head";
  layout.file_bytes = 14;
  auto const add = [&](char const* name, std::uint64_t offset, std::uint64_t bytes) {
    tensor_info tensor;
    tensor.name = name, tensor.offset = offset, tensor.bytes = bytes;
    layout.tensors.push_back(std::move(tensor));
  };
  add("a", 6, 4);
  add("b", 10, 3);
  add("c", 13, 0);
  return layout;
}

}  // namespace

TEST_CASE("pieces in any order make the same file, gaps stay zero") {
  temporary_folder const folder;
  planned_writer writer(output_file::create(folder / "x"), small_layout());
  CHECK_FALSE(writer.complete());
  writer.write("b", 2, as_byte_span("!"));
  writer.write("a", 2, as_byte_span("CD"));
  writer.write("b", 0, as_byte_span("xy"));
  writer.write("a", 1, {});
  CHECK_FALSE(writer.complete());
  writer.write("a", 0, as_byte_span("AB"));
  writer.write("c", as_byte_span(""));
  CHECK(writer.complete());
  writer.finish();
  using namespace std::string_view_literals;
  CHECK(get(folder / "x") == "head\0\0ABCDxy!\0"sv);
}

TEST_CASE("what is not in the plan, outside of it or twice is refused") {
  temporary_folder const folder;
  planned_writer writer(output_file::create(folder / "x"), small_layout());
  CHECK_THROWS_AS(writer.write("d", as_byte_span("1")), error);
  CHECK_THROWS_AS(writer.write("a", as_byte_span("123")), error);
  CHECK_THROWS_AS(writer.write("a", 3, as_byte_span("12")), error);
  CHECK_THROWS_AS(writer.write("a", 5, {}), error);
  CHECK_THROWS_AS(writer.write("a", ~std::uint64_t{0}, as_byte_span("1")), error);
  CHECK_THROWS_AS(writer.accept("d"), error);
  writer.write("a", 1, as_byte_span("12"));
  CHECK_THROWS_AS(writer.write("a", 2, as_byte_span("3")), error);
  CHECK_THROWS_AS(writer.write("a", 0, as_byte_span("01")), error);
  CHECK_THROWS_AS(writer.write("a", as_byte_span("0123")), error);
  CHECK_THROWS_AS(writer.accept("a"), error);
  CHECK_THROWS_WITH_AS(writer.finish(), doctest::Contains("tensor 'a': expected 4 bytes written, found 2"), error);
}

TEST_CASE("a stopped run's file is begun, and what it finished is accepted") {
  temporary_folder const folder;
  {
    planned_writer writer(output_file::create(folder / "x"), small_layout());
    writer.write("a", as_byte_span("ABCD"));
    writer.sync();
  }
  output_file again = output_file::reopen(folder / "x");
  CHECK(is_begun(again, small_layout()));
  planned_layout other = small_layout();
  other.header = "Head";
  CHECK_FALSE(is_begun(again, other));
  other = small_layout();
  ++other.file_bytes;
  CHECK_FALSE(is_begun(again, other));
  planned_writer writer(std::move(again), small_layout(), true);
  writer.accept("a");
  writer.accept("c");
  CHECK_FALSE(writer.complete());
  writer.write("b", as_byte_span("xyz"));
  CHECK(writer.complete());
  writer.finish();
  CHECK(get(folder / "x").substr(6, 7) == "ABCDxyz");
}

TEST_CASE("several threads fill one tensor") {
  temporary_folder const folder;
  constexpr std::size_t threads = 4, each = 1000;
  planned_layout layout;
  tensor_info tensor;
  tensor.name = "t", tensor.bytes = threads * each;
  layout.tensors.push_back(tensor);
  layout.file_bytes = threads * each;
  planned_writer writer(output_file::create(folder / "x"), layout);
  std::vector<std::thread> all;
  for (std::size_t i = 0; i < threads; ++i)
    all.emplace_back([&, i] {
      std::string const byte(1, static_cast<char>('a' + i));
      for (std::size_t k = each; k-- > 0;) writer.write("t", i + k * threads, as_byte_span(byte));
    });
  for (std::thread& one : all) one.join();
  CHECK(writer.complete());
  writer.finish();
  std::string expected;
  for (std::size_t k = 0; k < each; ++k) expected += "abcd";
  CHECK(get(folder / "x") == expected);
}

}  // namespace io_planned_writer_test
