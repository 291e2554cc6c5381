#include "temporary_folder.hpp"

#include <slimtrim/io/output_file.hpp>

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <vector>

namespace io_output_file_test {

using namespace io_test;
using namespace slimtrim;

TEST_CASE("a new file takes pieces at any place and keeps them") {
  temporary_folder const folder;
  output_file file = output_file::create(folder / "x");
  file.reserve(6);
  file.write_at(3, as_byte_span("def"));
  file.write_at(0, as_byte_span("abc"));
  file.sync();
  file.close();
  file.close();
  CHECK_FALSE(file.is_open());
  CHECK(get(folder / "x") == "abcdef");
  sync_folder(folder.path());
}

TEST_CASE("nothing that exists is overwritten, no link is followed") {
  temporary_folder const folder;
  put(folder / "x", "mine");
  CHECK_THROWS_AS((void)output_file::create(folder / "x"), system_failure);
  std::filesystem::create_symlink("nowhere", folder / "link");
  CHECK_THROWS_AS((void)output_file::create(folder / "link"), system_failure);
  CHECK_THROWS_AS((void)output_file::reopen(folder / "link"), system_failure);
  CHECK_THROWS_AS((void)output_file::create(folder / "no" / "x"), system_failure);
  CHECK(get(folder / "x") == "mine");
}

TEST_CASE("a full disk and a size limit say path and reason") {
  if (std::filesystem::exists("/dev/full")) {
    output_file full = output_file::reopen("/dev/full");
    std::string const message = message_of([&] { full.write_at(0, as_byte_span("abc")); });
    CHECK(has(message, "/dev/full"));
    CHECK(has(message, "No space left on device"));
  }
  temporary_folder const folder;
  output_file file = output_file::create(folder / "x");
  struct rlimit before;
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  struct rlimit small = before;
  small.rlim_cur = 5;
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  // The first write is short (5 of 9 bytes), the second fails: both paths of the loop.
  std::string const message = message_of([&] { file.write_at(0, as_byte_span("123456789")); });
  std::string const reserving = message_of([&] { file.reserve(100); });
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(has(message, "File too large"));
  CHECK(has(message, "at 5"));
  CHECK(has(reserving, "File too large"));
}

TEST_CASE("free space is looked at before the work") {
  temporary_folder const folder;
  require_free_space(folder.path(), 1);
  std::string const message = message_of([&] { require_free_space(folder.path(), std::uint64_t{1} << 62); });
  CHECK(has(message, "not enough space"));
  CHECK_THROWS_AS(require_free_space(folder / "no", 1), system_failure);
}

}  // namespace io_output_file_test
