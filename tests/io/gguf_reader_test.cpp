// Damaged GGUF files: refused with one line that names the place, at a cost that their size bounds.
#include <slimtrim/io/gguf.hpp>

#include <io/temporary_folder.hpp>

#include <slimtrim/core/error.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace io_gguf_reader_test {

namespace {

using namespace slimtrim;
using io_test::has;
using io_test::temporary_folder;

std::string sound_file() {
  gguf_metadata const keys{{"general.alignment", std::uint32_t{32}},
                           {"name", std::string("abc")},
                           {"list", gguf_array(std::vector<std::string>{"p", "q"})},
                           {"flag", true}};
  planned_layout const layout =
      plan_gguf(keys, {{"firsts", gguf_type::float32, {3}}, {"second", gguf_type::q8_0, {2, 32}}});
  std::string text = layout.header;
  text.resize(static_cast<std::size_t>(layout.file_bytes), 'd');
  return text;
}

std::string verdict(std::string const& text) {
  temporary_folder folder;
  io_test::put(folder / "x", text);
  try {
    (void)read_gguf_header(input_file::open(folder / "x"));
    return "sound";
  } catch (input_error const& e) {
    return e.what();
  }
}

// The file with `bytes` at the place `offset` behind the end of the first `mark`.
std::string with(std::string const& mark, std::size_t offset, std::string const& bytes) {
  std::string text = sound_file();
  std::size_t const at = text.find(mark);
  REQUIRE(at != std::string::npos);
  text.replace(at + mark.size() + offset, bytes.size(), bytes);
  return text;
}
std::string word(std::uint64_t value, std::size_t bytes) {
  std::string out(bytes, '\0');
  std::memcpy(out.data(), &value, bytes);
  return out;
}

}  // namespace

TEST_CASE("a sound file, and one that ends at any byte") {
  std::string const text = sound_file();
  CHECK(verdict(text) == "sound");
  CHECK(verdict(text + "more") == "sound");  // padding is allowed behind the last tensor
  // 68 bytes of Q8_0 need no padding to be whole.
  std::size_t const needed = text.size() - 28;
  CHECK(verdict(text.substr(0, needed)) == "sound");
  for (std::size_t length = 0; length < needed; ++length) CHECK(verdict(text.substr(0, length)) != "sound");
}

TEST_CASE("each field says what is wrong with it") {
  CHECK(has(verdict("GGML" + sound_file().substr(4)), "magic"));
  CHECK(has(verdict(with("GGUF", 0, word(1, 4))), "version: expected 2 or 3"));
  CHECK(verdict(with("GGUF", 0, word(2, 4))) == "sound");
  CHECK(has(verdict(with("GGUF", 0, word(0x03000000, 4))), "version"));
  CHECK(has(verdict(with("GGUF", 4, word(UINT64_MAX, 8))), "tensor"));
  CHECK(has(verdict(with("GGUF", 12, word(UINT64_MAX, 8))), "key"));
  CHECK(has(verdict(with("general.alignment", 4, word(24, 4))), "power of two"));
  CHECK(has(verdict(with("general.alignment", 4, word(0, 4))), "power of two"));
  CHECK(has(verdict(with("general.alignment", 0, word(5, 4))), "power of two"));
  CHECK(has(verdict(with("general.alignment", 0, word(13, 4))), "type below 13"));
  CHECK(has(verdict(with("name", 4, word(std::uint64_t{1} << 40, 8))), "key 'name'"));
  CHECK(has(verdict(with("list", 4, word(9, 4))), "array of numbers or strings"));
  CHECK(has(verdict(with("list", 8, word(std::uint64_t{1} << 60, 8))), "array inside the file"));
  CHECK(has(verdict(with("flag", 4, word(2, 1))), "expected 0 or 1"));
  std::string twice = sound_file();
  twice.replace(twice.find("flag"), 4, "name");
  CHECK(has(verdict(twice), "'name': expected once"));
}

TEST_CASE("tensors lie one behind the other, in whole blocks, inside the file") {
  CHECK(has(verdict(with("firsts", 0, word(0, 4))), "1 to 4 dimensions"));
  CHECK(has(verdict(with("firsts", 0, word(5, 4))), "1 to 4 dimensions"));
  CHECK(has(verdict(with("firsts", 4, word(UINT64_MAX, 8))), "extents below"));
  CHECK(has(verdict(with("firsts", 4, word(9, 8))), "offset"));
  CHECK(has(verdict(with("firsts", 12, word(4, 4))), "type: expected a known one, found 4"));
  CHECK(has(verdict(with("firsts", 16, word(32, 8))), "offset: expected 0, found 32"));
  CHECK(has(verdict(with("second", 4, word(31, 8))), "blocks of 32"));
  CHECK(has(verdict(with("second", 12, word(std::uint64_t{1} << 62, 8))), "second"));
  CHECK(has(verdict(with("second", 12, word(300, 8))), "inside the file"));
  CHECK(has(verdict(with("second", 24, word(64, 8))), "offset: expected 32, found 64"));
  std::string twice = sound_file();
  twice.replace(twice.find("second"), 6, "firsts");
  CHECK(has(verdict(twice), "'firsts': expected once"));
}

}  // namespace io_gguf_reader_test
