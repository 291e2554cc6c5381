#include <slimtrim/io/tokenizer/byte_level.hpp>

#include <doctest/doctest.h>

#include <set>
#include <string>

namespace io_tokenizer_byte_level_test {

using namespace slimtrim;

TEST_CASE("bytes and characters are one to one") {
  std::set<char32_t> seen;
  for (int b = 0; b < 256; ++b) {
    char32_t const c = byte_level_character(static_cast<unsigned char>(b));
    CHECK(byte_level_byte(c) == b);
    seen.insert(c);
  }
  CHECK(seen.size() == 256);
  CHECK(*seen.begin() == 0x21);
  CHECK(*seen.rbegin() == 0x143);
  CHECK(byte_level_character(' ') == 0x120);
  CHECK(byte_level_character('\n') == 0x10A);
  CHECK(byte_level_character(0xAD) == 0x143);
  CHECK(byte_level_byte(0x20) == -1);
  CHECK(byte_level_byte(0x10FFFF) == -1);
}

TEST_CASE("any bytes come back, and other characters are kept") {
  std::string bytes;
  for (int b = 255; b >= 0; --b) bytes.push_back(static_cast<char>(static_cast<unsigned char>(b)));
  std::string spelled;
  append_byte_level(spelled, bytes);
  CHECK(is_valid_utf8(spelled));
  std::string back = "kept";
  append_byte_level_decoded(back, spelled);
  CHECK(back == "kept" + bytes);
  append_byte_level_decoded(back, "\u0120a b");  // a space is no character of the alphabet
  CHECK(back == "kept" + bytes + "\u0120a b");
}

}  // namespace io_tokenizer_byte_level_test
