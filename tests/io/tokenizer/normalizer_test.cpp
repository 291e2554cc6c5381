#include <slimtrim/io/tokenizer/normalizer.hpp>

#include <doctest/doctest.h>

#include <string>

namespace io_tokenizer_normalizer_test {

using namespace slimtrim;

namespace {

std::string normal(std::string const& json, std::string const& text) {
  auto const parsed = nlohmann::json::parse(json);
  regex_workspace work;
  return normalizer(detail::json_field(parsed, "t.json", "normalizer")).apply(text, work);
}

}  // namespace

TEST_CASE("each kind of normalizer") {
  CHECK(normal(R"({"type": "NFC"})", "e\u0301") == "\u00e9");
  CHECK(normal(R"({"type": "NFD"})", "\u00e9") == "e\u0301");
  CHECK(normal(R"({"type": "NFKC"})", "\ufb01") == "fi");
  CHECK(normal(R"({"type": "NFKD"})", "\uff76") == "\u30ab");
  CHECK(normal(R"({"type": "Prepend", "prepend": "▁"})", "a") == "▁a");
  CHECK(normal(R"({"type": "Prepend", "prepend": "▁"})", "").empty());
  CHECK(normal(R"({"type": "Replace", "pattern": {"String": "."}, "content": "--"})", ".a..") == "--a----");
  CHECK(normal(R"({"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "})", "a \n b") == "a b");
  CHECK(normal(R"({"type": "Strip"})", " \u3000a b\u2028\n") == "a b");
  CHECK(normal(R"({"type": "Strip", "strip_left": false})", " a ") == " a");
  CHECK(normal(R"({"type": "Strip", "strip_right": false})", " \u00e9 ") == "\u00e9 ");
  CHECK(normal(R"({"type": "Strip"})", " \u3000 ").empty());
}

TEST_CASE("a sequence runs in order") {
  CHECK(normal(R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                   {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})",
               " a b") == "▁▁a▁b");
  CHECK(normal(R"({"type": "Sequence", "normalizers": []})", "a") == "a");
  CHECK(normalizer().empty());
}

TEST_CASE("what would explode is stopped, what is unknown refused") {
  std::string bomb = R"({"type": "Sequence", "normalizers": [)";
  for (int i = 0; i < 60; ++i)
    bomb += std::string(i == 0 ? "" : ",") + R"({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"})";
  CHECK_THROWS_AS((void)normal(bomb + "]}", "a"), error);
  std::string many = R"({"type": "Sequence", "normalizers": [)";
  for (int i = 0; i < 65; ++i) many += std::string(i == 0 ? "" : ",") + R"({"type": "NFC"})";
  CHECK_THROWS_AS((void)normal(many + "]}", "a"), input_error);
  CHECK_THROWS_WITH_AS(
      (void)normal(R"({"type": "Lowercase"})", ""),
      "t.json: normalizer.type: expected NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip or Sequence, found "
      "\"Lowercase\"",
      input_error);
  CHECK_THROWS_AS((void)normal(R"({"type": "Replace", "pattern": {"String": ""}, "content": "x"})", ""), input_error);
  CHECK_THROWS_AS((void)normal(R"({"type": "Replace", "pattern": {"Regex": "("}, "content": "x"})", ""), input_error);
}

}  // namespace io_tokenizer_normalizer_test
