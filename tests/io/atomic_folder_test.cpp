#include "temporary_folder.hpp"

#include <slimtrim/io/atomic_folder.hpp>

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <utility>

namespace io_atomic_folder_test {

using namespace io_test;
using namespace slimtrim;
namespace fs = std::filesystem;

namespace {
std::string refusal(fs::path const& out, atomic_folder_options const& options = {}) {
  return message_of([&] { atomic_folder const target(out, options); });
}
void die() { ::kill(::getpid(), SIGKILL); }
/// Runs `body` in a process of its own.
template <class Body>
void in_child_process(Body const& body) {
  pid_t const child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    body();  // ends with die()
    ::_exit(1);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
}
}  // namespace

TEST_CASE("what would be refused after the work is refused before it") {
  temporary_folder const folder;
  auto const early = [](fs::path const& out, std::vector<fs::path> const& inputs = {}) {
    return message_of([&] { check_new_output(out, inputs); });
  };
  fs::create_directories(folder.path() / "here" / "below");
  fs::create_directory_symlink(folder.path() / "here" / "below", folder.path() / "link");
  CHECK(check_new_output(folder.path() / "link" / ".." / "new" / "") == fs::canonical(folder.path()) / "here" / "new");
  for (fs::path const& out : {folder.path(), folder.path() / "none" / "new", fs::path(".")}) CHECK(early(out) == refusal(out));
  CHECK(early(folder.path() / "in", {folder.path()}) == refusal(folder.path() / "in", {.inputs = {folder.path()}}));
  fs::path const closed = folder.path() / "closed";
  fs::create_directory(closed);
  fs::permissions(closed, fs::perms::owner_read | fs::perms::owner_exec);
  if (::geteuid() != 0) CHECK(early(closed / "new").find("create: ") != std::string::npos);
  fs::permissions(closed, fs::perms::owner_all);
  CHECK_FALSE(fs::exists(folder.path() / "new"));
}

TEST_CASE("a committed folder holds exactly what was written") {
  temporary_folder const folder;
  put(folder / "source", std::string(3'000'000, 's'));
  {
    atomic_folder target(folder / "out/");
    CHECK(target.path() == folder / "out.partial");
    CHECK(target.final_path() == folder / "out");
    CHECK_FALSE(target.resumed());
    target.write("a", "text");
    target.copy(input_file::open(folder / "source"), "b");
    output_file file = target.create("c");
    file.write_at(0, as_byte_span("c"));
    file.close();
    fs::create_directory(target.path() / "sub");
    put(target.path() / "sub" / "d", "d");
    CHECK_FALSE(fs::exists(folder / "out"));
    target.commit();
    CHECK_THROWS_AS(target.commit(), error);
  }
  CHECK_FALSE(fs::exists(folder / "out.partial"));
  CHECK(get(folder / "out" / "a") == "text");
  CHECK(get(folder / "out" / "b").size() == 3'000'000);
  CHECK(get(folder / "out" / "sub" / "d") == "d");
  CHECK(std::distance(fs::directory_iterator(folder / "out"), fs::directory_iterator()) == 4);
}

TEST_CASE("without a commit nothing stays") {
  temporary_folder const folder;
  {
    atomic_folder first(folder / "out");
    first.write("a", "text");
    atomic_folder const second = std::move(first);
    CHECK(fs::exists(folder / "out.partial" / "a"));
  }
  CHECK(fs::is_empty(folder.path()));
}

TEST_CASE("an output that exists, in any form, is refused and left alone") {
  temporary_folder const folder;
  put(folder / "file", "mine");
  fs::create_directory(folder / "empty");
  fs::create_symlink("nowhere", folder / "dangling");
  for (char const* name : {"file", "empty", "dangling", "empty/", "./empty/../empty"})
    CHECK(has(refusal(folder.path() / name), "expected not to exist"));
  CHECK(get(folder / "file") == "mine");
  CHECK(has(refusal(folder / "no" / "out"), "existing parent folder"));
  for (char const* name : {"", ".", "..", "/"}) CHECK(refusal(name) != "");
}

TEST_CASE("an output inside an input is refused, however it is spelled") {
  temporary_folder const folder;
  fs::create_directories(folder / "model" / "sub");
  put(folder / "model" / "w", "weights");
  fs::create_directory_symlink(folder / "model" / "sub", folder / "door");
  atomic_folder_options const options{.inputs = {folder / "model", folder / "model" / "w"}};
  for (char const* name : {"model/out", "model/sub/out", "model/../model/out", "door/out", "./model/./sub/../out"})
    CHECK(has(refusal(folder.path() / name, options), "inside"));
  for (char const* name : {"model", "model/", "model/sub/.."}) CHECK(refusal(folder.path() / name, options) != "");
  CHECK(refusal(folder / "model2", options) == "");
  CHECK(std::distance(fs::recursive_directory_iterator(folder / "model"), fs::recursive_directory_iterator()) == 2);
}

TEST_CASE("two writers never mix") {
  temporary_folder const folder;
  atomic_folder first(folder / "out");
  first.write("a", "first");
  CHECK(has(refusal(folder / "out"), "another process"));
  CHECK(has(refusal(folder / "out", {.resume = true}), "another process"));
  CHECK(get(folder / "out.partial" / "a") == "first");
  first.commit();
  CHECK(has(refusal(folder / "out"), "expected not to exist"));
}

TEST_CASE("what a killed run left is removed, or resumed when asked") {
  temporary_folder const folder;
  auto const left = [&] {
    in_child_process([&] {
      atomic_folder const target(folder / "out");
      target.write("a", "old");
      die();
    });
    REQUIRE(fs::exists(folder / "out.partial" / "a"));
  };
  left();
  {
    atomic_folder const target(folder / "out", {.resume = true});
    CHECK(target.resumed());
    CHECK(get(target.path() / "a") == "old");
  }
  CHECK_FALSE(fs::exists(folder / "out.partial"));
  left();
  {
    atomic_folder target(folder / "out");
    CHECK_FALSE(target.resumed());
    CHECK_FALSE(fs::exists(target.path() / "a"));
    target.keep(true);
    target.write("b", "new");
  }
  CHECK(fs::exists(folder / "out.partial" / "b"));
  atomic_folder target(folder / "out", {.resume = true});
  CHECK(target.resumed());
  target.commit();
  CHECK(get(folder / "out" / "b") == "new");
  CHECK(std::distance(fs::directory_iterator(folder / "out"), fs::directory_iterator()) == 1);
}

TEST_CASE("files of unknown origin under the working name are never removed") {
  temporary_folder const folder;
  fs::create_directory(folder / "out.partial");
  put(folder / "out.partial" / "precious", "mine");
  CHECK(has(refusal(folder / "out"), "unknown origin"));
  CHECK(get(folder / "out.partial" / "precious") == "mine");
  fs::create_directory_symlink(folder / "out.partial", folder / "two.partial");
  CHECK(refusal(folder / "two") != "");
  put(folder / "three.partial", "mine");
  CHECK(refusal(folder / "three") != "");
  CHECK(get(folder / "three.partial") == "mine");
}

TEST_CASE("an output that appears during the run is not replaced") {
  temporary_folder const folder;
  {
    atomic_folder target(folder / "out");
    target.write("a", "ours");
    fs::create_directory(folder / "out");
    CHECK_THROWS_AS(target.commit(), input_error);
  }
  CHECK(fs::is_empty(folder / "out"));
  CHECK_FALSE(fs::exists(folder / "out.partial"));
}

TEST_CASE("names with separators and links in the output are refused") {
  temporary_folder const folder;
  atomic_folder target(folder / "out");
  for (char const* name : {"../x", "a/b", "", "..", ".slimtrim-partial"})
    CHECK_THROWS_AS((void)target.create(name), error);
  fs::create_symlink("/etc/passwd", target.path() / "link");
  CHECK_THROWS_AS(target.commit(), input_error);
}

}  // namespace io_atomic_folder_test
