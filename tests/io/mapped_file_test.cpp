#include "temporary_folder.hpp"

#include <slimtrim/io/mapped_file.hpp>

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace io_mapped_file_test {

using namespace io_test;
using namespace slimtrim;

namespace {

// What /proc/self/smaps counts for the mapping of `path`: the kilobytes that are in our page table; -1 when there is none.
long resident_kilobytes(std::filesystem::path const& path) {
  std::ifstream maps("/proc/self/smaps");
  std::string line;
  for (bool ours = false; std::getline(maps, line);) {
    if (has(line, path.native())) ours = true;
    if (ours && line.rfind("Rss:", 0) == 0) return std::stol(line.substr(4));
  }
  return -1;
}

}  // namespace

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

TEST_CASE("all of a range is read ahead, not only what the system takes for one advice") {
  temporary_folder const folder;
  std::size_t const size = std::size_t{16} << 20, page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  put(folder / "x", std::string(size, 'x'));
  {
    int const file = ::open((folder / "x").c_str(), O_RDONLY);
    REQUIRE(file >= 0);
    REQUIRE(::fsync(file) == 0);
    static_cast<void>(::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED));
    ::close(file);
  }
  mapped_file const file(input_file::open(folder / "x"));
  std::vector<unsigned char> there(size / page);
  auto const pages_there = [&] {
    REQUIRE(::mincore(const_cast<std::byte*>(file.bytes().data()), size, there.data()) == 0);
    return std::count_if(there.begin(), there.end(), [](unsigned char p) { return (p & 1) != 0; });
  };
  bool const cold = pages_there() == 0;  // a file system in memory has them always
  auto const all = static_cast<std::ptrdiff_t>(there.size());
  file.prefetch(0, size / 2);
  for (int i = 0; i < 500 && pages_there() < all / 2; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  CHECK(pages_there() >= all / 2);
  if (cold) CHECK(pages_there() < all);
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
  if (resident_kilobytes(folder / "x") < 0) return;
  CHECK(resident_kilobytes(folder / "x") == 1024);
  // Half, and the 64 KiB behind it.
  file.release(0, size / 2);
  CHECK(resident_kilobytes(folder / "x") == 448);
}

TEST_CASE("reading and releasing piece by piece leaves nothing, though faults map neighbours") {
  temporary_folder const folder;
  std::size_t const size = std::size_t{8} << 20, piece = 100'000;
  put(folder / "x", std::string(size, 'x'));
  mapped_file const file(input_file::open(folder / "x"));
  for (std::size_t first = 0; first < size; first += piece) {
    int sum = 0;
    std::size_t const count = std::min(piece, size - first);
    for (std::size_t i = 0; i < count; ++i) sum += std::to_integer<int>(file.bytes()[first + i]);
    CHECK(sum == static_cast<int>(count) * 'x');
    file.release(first, count);
  }
  CHECK(resident_kilobytes(folder / "x") <= 0);
}

}  // namespace io_mapped_file_test
