#include <slimtrim/io/tokenizer/document.hpp>

#include <doctest/doctest.h>

#include <string>

namespace io_tokenizer_document_test {

using namespace slimtrim;

namespace {

detail::tokenizer_document read(std::string const& text, tokenizer_limits const& limits = {}) {
  return detail::read_tokenizer_document(text, "t.json", limits);
}

void refuse(std::string const& text, char const* message, tokenizer_limits const& limits = {}) {
  CAPTURE(text);
  CHECK_THROWS_WITH_AS((void)read(text, limits), message, input_error);
}

}  // namespace

TEST_CASE("vocabulary and merges leave the tree, the rest stays") {
  auto const d = read(R"({"a": [1, {"vocab": {"x": 1}}], "model": {"merges": ["#version: 0.2", "p q", ["r s", "t"]],
                          "vocab": {"p": 1, "": 0}, "type": "BPE"}, "vocab": [1]})");
  CHECK(d.tokens.size() == 2);
  CHECK(d.tokens.find("p") == token_id{1});
  REQUIRE(d.merges.size() == 2);
  CHECK(d.merges.left(0) == "p");
  CHECK(d.merges.right(0) == "q");
  CHECK(d.merges.joined(1) == "r st");
  CHECK(d.merges.left(1) == "r s");
  CHECK(d.rest == nlohmann::json::parse(R"({"a": [1, {"vocab": {"x": 1}}],
      "model": {"merges": [], "vocab": {}, "type": "BPE"}, "vocab": [1]})"));
}

TEST_CASE("hostile documents are refused by field") {
  refuse("", "t.json: expected JSON, found a syntax error at byte 1");
  refuse("[]", "t.json: expected an object, found array");
  refuse("3", "t.json: expected an object, found number");
  refuse("{} x", "t.json: expected JSON, found a syntax error at byte 4");
  refuse(std::string("{}\0x", 4), "t.json: expected JSON, found a NUL at byte 2");
  refuse("{\"a\": \"\xFF\"}", "t.json: expected JSON, found a syntax error at byte 8");
  refuse(R"({"a": 1, "a": 2})", "t.json: a: expected every key once, found it twice");
  refuse(R"({"model": {"vocab": {"p": 1, "p": 2}}})",
         "t.json: model.vocab.p: expected every token once, found \"p\" twice");
  refuse(R"({"model": {"vocab": {"p": 1, "q": 1}}})",
         "t.json: model.vocab.q: expected every id once, found id 1 twice");
  refuse(R"({"model": {"vocab": {"p": 4194304}}})",
         "t.json: model.vocab.p: expected an id below 4194304, found 4194304");
  refuse(R"({"model": {"vocab": {"p": -1}}})", "t.json: model.vocab.p: expected an id, found number");
  refuse(R"({"model": {"vocab": {"p": [1]}}})", "t.json: model.vocab.p: expected an id, found array");
  refuse(R"({"model": {"vocab": [["p", 0.5]]}})",
         "t.json: model.vocab: expected an object of tokens and ids, as BPE has, found an array");
  refuse(R"({"model": {"merges": ["p q r"]}})",
         "t.json: model.merges[0]: expected two tokens with one space between them, found \"p q r\"");
  refuse(R"({"model": {"merges": ["p q", "p"]}})",
         "t.json: model.merges[1]: expected two tokens with one space between them, found \"p\"");
  refuse(R"({"model": {"merges": [["p"]]}})", "t.json: model.merges[0][1]: expected two tokens, found 1");
  refuse(R"({"model": {"merges": [["p", "q", "r"]]}})", "t.json: model.merges[0][3]: expected two tokens, found 3");
  refuse(R"({"model": {"merges": [["p", 1]]}})", "t.json: model.merges[0][1]: expected a token, found number");
  refuse(R"({"model": {"merges": [{}]}})",
         "t.json: model.merges[0]: expected \"left right\" or [\"left\", \"right\"], found object");
}

TEST_CASE("size, depth and number of values are limited") {
  refuse("{\"a\": 1}", "t.json: expected at most 7 bytes, found 8", {.file_bytes = 7});
  refuse(R"({"a": [[1]]})", "t.json: a[0]: expected at most 2 levels, found more", {.depth = 2});
  refuse(R"({"a": [1, 2, 3]})", "t.json: a[2]: expected at most 3 values, found more", {.values = 3});
  std::string const deep = "{\"a\": " + std::string(100'000, '[');
  CHECK_THROWS_AS((void)read(deep), input_error);
}

}  // namespace io_tokenizer_document_test
