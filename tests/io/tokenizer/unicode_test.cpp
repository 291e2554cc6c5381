#include <slimtrim/io/tokenizer/unicode.hpp>

#include <doctest/doctest.h>

#include <string>

namespace io_tokenizer_unicode_test {

using namespace slimtrim;

TEST_CASE("every scalar value survives encoding and decoding") {
  for (char32_t c = 0; c <= 0x10FFFF; c += c < 0x3000 ? 1 : 37) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    utf8_step const step = decode_utf8(text, 0);
    REQUIRE(step.valid);
    REQUIRE(step.value == c);
    REQUIRE(step.length == text.size());
    REQUIRE(utf8_length(text[0]) == text.size());
    REQUIRE(is_valid_utf8(text));
  }
}

TEST_CASE("ill-formed text is replaced by maximal subparts") {
  // Unicode standard, section 3.9, tables 3-8 to 3-11.
  CHECK(replace_invalid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41") ==
        "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41");
  CHECK(replace_invalid_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41") ==
        "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41");
  CHECK(replace_invalid_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42") ==
        "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\x41\uFFFD\uFFFD\x42");
  CHECK(replace_invalid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41") == "\uFFFD\uFFFD\uFFFD\uFFFD\x41");
  CHECK(replace_invalid_utf8("\xE3\x81") == "\uFFFD");
  CHECK(replace_invalid_utf8("\u65e5 a") == "\u65e5 a");
}

TEST_CASE("validity is seen behind any length of plain text") {
  for (std::size_t n = 0; n < 20; ++n) {
    std::string const plain(n, 'x');
    CHECK(is_valid_utf8(plain));
    CHECK(is_valid_utf8(plain + "\u00e9" + plain));
    CHECK(!is_valid_utf8(plain + "\x80" + plain));
    CHECK(!is_valid_utf8(plain + "\xC3"));
  }
}

TEST_CASE("white space is Unicode's") {
  int count = 0;
  for (char32_t c = 0; c <= 0x10FFFF; ++c) count += is_white_space(c) ? 1 : 0;
  CHECK(count == 25);
  CHECK(is_white_space(0x85));
  CHECK(!is_white_space(0x180E));
  CHECK(!is_white_space(0x200B));
}

TEST_CASE("text in messages is short and on one line") {
  CHECK(detail::shown_text("a\nb\x7F\u0085\u2028z\xFF") == "\"a?b???z?\"");
  CHECK(detail::shown_text(std::string(100, 'x')).size() == 45);
}

}  // namespace io_tokenizer_unicode_test
