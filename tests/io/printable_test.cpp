#include <slimtrim/io/printable.hpp>

#include <doctest/doctest.h>

#include <string>

namespace io_printable_test {

using namespace slimtrim;

TEST_CASE("ordinary names are kept, control characters and broken bytes are escaped") {
  CHECK(printable("model.layers.0") == "model.layers.0");
  CHECK(printable("größe 重み 😀") == "größe 重み 😀");
  CHECK(printable(std::string("a\0b\n\x1b[0m\x7f", 9)) == "a\\x00b\\x0a\\x1b[0m\\x7f");
  CHECK(printable("\xC2\x9B") == "\\xc2\\x9b");  // the 8-bit form of an escape sequence
  CHECK(printable("\xFFx\xC3") == "\\xffx\\xc3");
  CHECK(printable("abcdef", 3) == "abc...");
  CHECK(printable("") == "");
}

TEST_CASE("UTF-8 by the table of Unicode") {
  for (char const* good : {"", "a", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
                           "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"})
    CHECK(is_utf8(good));
  for (char const* bad : {"\x80", "\xBF", "\xC0\xAF", "\xC1\xBF", "\xC2", "\xC2x", "\xE0\x9F\xBF", "\xE0\x80\xAF",
                          "\xED\xA0\x80", "\xED\xBF\xBF", "\xE2\x82", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
                          "\xF5\x80\x80\x80", "\xF8\x88\x80\x80\x80", "\xFE", "\xFF", "ok\xF0\x9F\x98"})
    CHECK_FALSE(is_utf8(bad));
}

}  // namespace io_printable_test
