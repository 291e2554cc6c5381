#include <slimtrim/io/tokenizer/regex.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace io_tokenizer_regex_test {

using namespace slimtrim;

namespace {

nlohmann::json const nothing;
detail::json_field const here(nothing, "t.json", "pattern");

// Matches in brackets, the rest bare.
std::string shown(regex const& pattern, std::string const& text) {
  regex_workspace work;
  std::string out;
  std::size_t at = 0;
  pattern.for_each_piece(text, work, [&](byte_range r, bool match) {
    CHECK(r.begin == at);
    at = r.end;
    std::string const part = text.substr(r.begin, r.end - r.begin);
    out += match ? "[" + part + "]" : part;
  });
  CHECK(at == text.size());
  return out;
}

}  // namespace

TEST_CASE("matches and the text between them cover the text") {
  CHECK(shown(regex("[0-9]+", here), "a12b3") == "a[12]b[3]");
  CHECK(shown(regex("x", here), "abc") == "abc");
  CHECK(shown(regex("x", here), "").empty());
  CHECK(shown(regex("[0-9]*", here), "a12b") == "[]a[12]b[]");
  CHECK(shown(regex("(?=b)", here), "\u00e9b") == "\u00e9[]b");
  CHECK(shown(regex("^.|.$", here), "ab\ncd\n") == "[a][b]\n[c][d]\n");
}

TEST_CASE("classes are Unicode's, white space as Unicode defines it") {
  CHECK(shown(regex(R"(\s)", here), "a\u0085b\u180ec\u2028d\u200be") == "a[\u0085]b\u180ec[\u2028]d\u200be");
  CHECK(shown(regex(R"(\p{L}+)", here), "h\u00e9\u65e51") == "[h\u00e9\u65e5]1");
  CHECK(shown(regex(R"((?i:'s))", here), "'S'\u017f") == "['S]['\u017f]");
  CHECK(shown(regex(R"(\w)", here), "_\u0301-\u0663") == "[_][\u0301]-[\u0663]");
}

TEST_CASE("a literal means itself") {
  CHECK(shown(regex::literal(".*\\E\n[", here), "a.*\\E\n[b") == "a[.*\\E\n[]b");
  CHECK(shown(regex::literal("\u2581", here), "\u2581a\u2581") == "[\u2581]a[\u2581]");
}

TEST_CASE("malformed patterns are refused by field") {
  CHECK_THROWS_WITH_AS(regex("", here), "t.json: pattern: expected a pattern, found an empty one", input_error);
  CHECK_THROWS_AS(regex("(a", here), input_error);
  CHECK_THROWS_AS(regex("a)", here), input_error);
  CHECK_THROWS_AS(regex("*", here), input_error);
  CHECK_THROWS_AS(regex("\\b", here), input_error);
  CHECK_THROWS_AS(regex("\\p{Nothing}", here), input_error);
  CHECK_THROWS_AS(regex(std::string(70000, 'a'), here), input_error);
  CHECK_THROWS_AS((void)regex::literal("", here), input_error);
}

TEST_CASE("a pattern that backtracks without bound is stopped") {
  regex const pattern("(?:a|aa|aaa)+c", here);
  regex_workspace work;
  CHECK_THROWS_AS((void)pattern.find(std::string(200, 'a') + "bc", 0, work), error);
}

}  // namespace io_tokenizer_regex_test
