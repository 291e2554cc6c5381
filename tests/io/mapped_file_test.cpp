#include "temporary_folder.hpp"

#include <slimtrim/io/mapped_file.hpp>

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <string>
#include <utility>
#include <vector>

namespace io_mapped_file_test {

using namespace io_test;
using namespace slimtrim;

TEST_CASE("the mapping shows the file, also after a move and after a release") {
  temporary_folder const folder;
  std::string text(100'000, 'a');
  text[50'000] = 'b';
  put(folder / "x", text);
  mapped_file first(input_file::open(folder / "x"));
  mapped_file second = std::move(first);
  CHECK(first.bytes().empty());
  auto const bytes = second.bytes();
  REQUIRE(bytes.size() == text.size());
  CHECK(std::to_integer<char>(bytes[50'000]) == 'b');
  second.release(40'000, 20'000);
  second.prefetch(0, 100'000);
  CHECK(std::to_integer<char>(bytes[50'000]) == 'b');
  second.release(~std::uint64_t{0}, 5);
  second.release(99'999, ~std::uint64_t{0});
  mapped_file third;
  third = std::move(second);
  CHECK(std::to_integer<char>(third.bytes()[50'000]) == 'b');
}

TEST_CASE("an empty file maps to nothing") {
  temporary_folder const folder;
  put(folder / "x", "");
  mapped_file const file(input_file::open(folder / "x"));
  CHECK(file.bytes().empty());
  file.release(0, 10);
}

TEST_CASE("released pages leave the memory of the process") {
  temporary_folder const folder;
  std::size_t const size = std::size_t{1} << 20;
  put(folder / "x", std::string(size, 'x'));
  mapped_file const file(input_file::open(folder / "x"));
  int sum = 0;
  for (std::size_t i = 0; i < size; i += 4096) sum += std::to_integer<int>(file.bytes()[i]);
  CHECK(sum == 256 * 'x');
  // /proc/self/smaps counts, for this mapping only, the pages that are in our page table.
  auto const resident = [&] {
    std::ifstream maps("/proc/self/smaps");
    std::string line;
    for (bool ours = false; std::getline(maps, line);) {
      if (has(line, (folder / "x").native())) ours = true;
      if (ours && line.rfind("Rss:", 0) == 0) return std::stol(line.substr(4));
    }
    return -1L;
  };
  if (resident() < 0) return;
  CHECK(resident() == 1024);
  file.release(0, size / 2);
  CHECK(resident() == 512);
}

}  // namespace io_mapped_file_test
