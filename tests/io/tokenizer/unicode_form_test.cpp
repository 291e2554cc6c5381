#include <slimtrim/io/tokenizer/unicode_form.hpp>

#include <doctest/doctest.h>

#include <string>

namespace io_tokenizer_unicode_form_test {

using namespace slimtrim;

TEST_CASE("the four forms") {
  // Unicode standard annex 15, figures 4 to 6.
  CHECK(to_unicode_form("\u212b", unicode_form::nfd) == "A\u030a");
  CHECK(to_unicode_form("\u212b", unicode_form::nfc) == "\u00c5");
  CHECK(to_unicode_form("\u2126", unicode_form::nfc) == "\u03a9");
  CHECK(to_unicode_form("\u1e0b\u0323", unicode_form::nfd) == "d\u0323\u0307");
  CHECK(to_unicode_form("\u1e0b\u0323", unicode_form::nfc) == "\u1e0d\u0307");
  CHECK(to_unicode_form("q\u0307\u0323", unicode_form::nfc) == "q\u0323\u0307");
  CHECK(to_unicode_form("\ufb01", unicode_form::nfc) == "\ufb01");
  CHECK(to_unicode_form("\ufb01", unicode_form::nfkc) == "fi");
  CHECK(to_unicode_form("2\u2075", unicode_form::nfkd) == "25");
  CHECK(to_unicode_form("\u1e9b\u0323", unicode_form::nfkc) == "\u1e69");
  CHECK(to_unicode_form("\uac01", unicode_form::nfd) == "\u1100\u1161\u11a8");
  CHECK(to_unicode_form("\u1100\u1161\u11a8", unicode_form::nfc) == "\uac01");
}

TEST_CASE("lines are independent, plain text is untouched, every form is stable") {
  std::string const text = "plain\n\u00e9 Latin\ne\u0301 \u30ab\u3099\n\u0301first\nlast \ufdfa";
  for (unicode_form const form : {unicode_form::nfc, unicode_form::nfd, unicode_form::nfkc, unicode_form::nfkd}) {
    std::string const once = to_unicode_form(text, form);
    CHECK(to_unicode_form(once, form) == once);
    CHECK(once.rfind("plain\n", 0) == 0);
  }
  CHECK(to_unicode_form(text, unicode_form::nfc) == "plain\n\u00e9 Latin\n\u00e9 \u30ac\n\u0301first\nlast \ufdfa");
  CHECK(to_unicode_form("", unicode_form::nfkd).empty());
}

TEST_CASE("a long run of marks is ordered in near linear time") {
  std::string text = "a", expected = "a";
  for (int i = 0; i < 50'000; ++i) text += "\u0307\u0323";
  for (int i = 0; i < 50'000; ++i) expected += "\u0323";
  for (int i = 0; i < 50'000; ++i) expected += "\u0307";
  CHECK(to_unicode_form(text, unicode_form::nfd) == expected);
}

}  // namespace io_tokenizer_unicode_form_test
