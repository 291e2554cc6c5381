#include <slimtrim/io/tokenizer/pre_tokenizer.hpp>

#include <doctest/doctest.h>

#include <string>

namespace io_tokenizer_pre_tokenizer_test {

using namespace slimtrim;

namespace {

// The words, each followed by a bar.
std::string words(std::string const& json, std::string const& text, bool at_start = true) {
  auto const parsed = nlohmann::json::parse(json);
  pre_tokenizer const p(detail::json_field(parsed, "t.json", "pre_tokenizer"));
  pre_tokenizer_workspace work;
  std::string out;
  p.for_each_word(text, at_start, work, [&](std::string_view word) { (out += word) += '|'; });
  return out;
}

std::string cut(char const* behavior, bool invert, std::string const& text) {
  return words(R"({"type": "Split", "pattern": {"String": "-"}, "invert": )" + std::string(invert ? "true" : "false") +
                   R"(, "behavior": ")" + behavior + "\"}",
               text);
}

}  // namespace

TEST_CASE("matches are removed, isolated or joined to a neighbour") {
  // The example of the reference library's documentation.
  std::string const text = "the-final--countdown";
  CHECK(cut("Removed", false, text) == "the|final|countdown|");
  CHECK(cut("Isolated", false, text) == "the|-|final|-|-|countdown|");
  CHECK(cut("MergedWithPrevious", false, text) == "the-|final-|-|countdown|");
  CHECK(cut("MergedWithNext", false, text) == "the|-final|-|-countdown|");
  CHECK(cut("Contiguous", false, text) == "the|-|final|--|countdown|");
  CHECK(cut("Removed", true, text) == "-|-|-|");
  CHECK(cut("MergedWithPrevious", true, text) == "the|-final|-|-countdown|");
  CHECK(cut("MergedWithNext", true, text) == "the-|final-|-|countdown|");
  for (char const* behavior : {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"}) {
    CHECK(cut(behavior, false, "").empty());
    CHECK(cut(behavior, false, "a") == "a|");
    CHECK(cut(behavior, true, "-") == "-|");
  }
}

TEST_CASE("byte-level words are handed on as bytes when they come last") {
  CHECK(words(R"({"type": "ByteLevel", "add_prefix_space": false})", "it's  12 \u00e9!\n\n x") ==
        "it|'s| | 12| \u00e9|!|\n\n| x|");
  CHECK(words(R"({"type": "ByteLevel"})", "a b") == " a| b|");
  CHECK(words(R"({"type": "ByteLevel", "use_regex": false})", " a b") == " a b|");
  CHECK(words(R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "add_prefix_space": false},
                  {"type": "Digits", "individual_digits": true}]})",
              "a 12") == "a|\u0120|1|2|");
}

TEST_CASE("the simple pre-tokenizers") {
  CHECK(words(R"({"type": "Digits", "individual_digits": true})", "a12\u2167b") == "a|1|2|\u2167|b|");
  CHECK(words(R"({"type": "Digits"})", "a12\u2167b") == "a|12\u2167|b|");
  CHECK(words(R"({"type": "Punctuation"})", "a,$\u3002b") == "a|,|$|\u3002|b|");
  CHECK(words(R"({"type": "Whitespace"})", " a_1, b\u00a0!?") == "a_1|,|b|!?|");
  CHECK(words(R"({"type": "WhitespaceSplit"})", " a,\u2028 b") == "a,|b|");
  CHECK(words(R"({"type": "Sequence", "pretokenizers": []})", "a b") == "a b|");
}

TEST_CASE("Metaspace") {
  auto const meta = [](char const* scheme, bool split) {
    return R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": ")" + std::string(scheme) +
           R"(", "split": )" + (split ? "true}" : "false}");
  };
  CHECK(words(meta("always", true), "a  b") == "▁a|▁|▁b|");
  CHECK(words(meta("always", true), " a") == "▁a|");
  CHECK(words(meta("always", true), "▁a") == "▁a|");
  CHECK(words(meta("first", true), "a b") == "▁a|▁b|");
  CHECK(words(meta("first", true), "a b", false) == "a|▁b|");
  CHECK(words(meta("never", false), "a b") == "a▁b|");
  CHECK(words(R"({"type": "Metaspace", "replacement": "_", "add_prefix_space": false})", "a b") == "a|_b|");
  CHECK(words(R"({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, )" + meta("first", true) + "]}",
              "a b") == "▁a|b|");
}

TEST_CASE("what is unknown is refused by name") {
  auto const refuse = [](char const* json, char const* message) {
    CHECK_THROWS_WITH_AS((void)words(json, ""), message, input_error);
  };
  refuse(R"({"type": "UnicodeScripts"})",
         "t.json: pre_tokenizer.type: expected ByteLevel, Split, Digits, Punctuation, Whitespace, WhitespaceSplit, "
         "Metaspace or Sequence, found \"UnicodeScripts\"");
  refuse(R"({})", "t.json: pre_tokenizer.type: expected a value, found none");
  refuse(
      R"({"type": "Split", "pattern": {"String": "x"}, "behavior": "Other"})",
      "t.json: pre_tokenizer.behavior: expected Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous, "
      "found \"Other\"");
  refuse(R"({"type": "Metaspace", "replacement": "ab"})",
         "t.json: pre_tokenizer.replacement: expected one character, found \"ab\"");
  refuse(R"({"type": "Metaspace", "replacement": "a", "prepend_scheme": "x"})",
         "t.json: pre_tokenizer.prepend_scheme: expected always, first or never, found \"x\"");
}

}  // namespace io_tokenizer_pre_tokenizer_test
