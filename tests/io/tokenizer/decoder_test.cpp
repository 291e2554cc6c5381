#include <slimtrim/io/tokenizer/decoder.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace io_tokenizer_decoder_test {

using namespace slimtrim;

namespace {

std::string decoded(std::string const& json, std::vector<std::string> tokens) {
  auto const parsed = nlohmann::json::parse(json);
  regex_workspace work;
  return decoder(detail::json_field(parsed, "t.json", "decoder")).apply(std::move(tokens), work);
}

constexpr char const* mixtral = R"({"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})";

}  // namespace

TEST_CASE("without a decoder tokens are joined by spaces") {
  regex_workspace work;
  CHECK(decoder().apply({"a", "b"}, work) == "a b");
  CHECK(decoder().apply({}, work).empty());
}

TEST_CASE("byte-level tokens") {
  std::string const json = R"({"type": "ByteLevel"})";
  CHECK(decoded(json, {"\u0120a", "\u00c3", "\u00a9"}) == " a\u00e9");
  CHECK(decoded(json, {"\u00e3\u0123", "a"}) == "\uFFFDa");  // one per maximal subpart
  CHECK(decoded(json, {"a", "<s \u65e5>"}) == "a<s \u65e5>");
}

TEST_CASE("byte tokens") {
  CHECK(decoded(mixtral, {"▁a", "▁b"}) == "a b");
  CHECK(decoded(mixtral, {"▁", "<0xE6>", "<0x97>", "<0xA5>", "<0x0A>", "x"}) == "\u65e5\nx");
  CHECK(decoded(mixtral, {"<0xE6>", "<0x97>", "x"}) == "\uFFFD\uFFFDx");  // one per byte of the run
  CHECK(decoded(mixtral, {"<0xE6>", "<0x41>"}) == "\uFFFD\uFFFD");
  CHECK(decoded(mixtral, {"<0xG1>", "<0x1>", "<0x123>", "<0x-1>"}) == "<0xG1><0x1><0x123><0x-1>");
}

TEST_CASE("strip and metaspace") {
  std::string const strip = R"({"type": "Strip", "content": "-", "start": 2, "stop": 1})";
  CHECK(decoded(strip, {"---a--", "-", "", "b"}) == "-a-b");
  std::string const meta = R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"})";
  CHECK(decoded(meta, {"▁a", "▁b▁"}) == "a b ");
  CHECK(decoded(R"({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"})", {"▁a"}) == " a");
}

TEST_CASE("what is unknown is refused by name") {
  CHECK_THROWS_WITH_AS((void)decoded(R"({"type": "WordPiece"})", {}),
                       "t.json: decoder.type: expected ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace or "
                       "Sequence, found \"WordPiece\"",
                       input_error);
  CHECK_THROWS_AS((void)decoded(R"({"type": "Strip", "content": "", "start": 1, "stop": 0})", {}), input_error);
  CHECK_THROWS_AS((void)decoded(R"({"type": "Strip", "content": "a", "start": -1, "stop": 0})", {}), input_error);
}

}  // namespace io_tokenizer_decoder_test
