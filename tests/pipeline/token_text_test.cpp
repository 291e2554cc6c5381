// Text to token ids: prefixes of long texts, lines of JSON, and broken ones.
#include <slimtrim/pipeline/token_text.hpp>

#include <support/temporary_folder.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace pipeline_token_text_test {

using namespace slimtrim;

namespace {

using ids = std::vector<std::uint32_t>;

tokenizer bundled_tokenizer() {
  return tokenizer::from_file(SLIMTRIM_SOURCE_DIR "/examples/models/tiny-mixtral/tokenizer.json");
}

}  // namespace

TEST_CASE("a long text is encoded as far as it is needed") {
  temporary_folder folder;
  tokenizer const encoder = bundled_tokenizer();
  std::string text;
  for (int i = 0; i < 30000; ++i) text += "The " + std::to_string(i) + "th word, na\xc3\xafve \xf0\x9f\x99\x82.\n";
  input_file const file = input_file::open(folder.write("long.txt", text));
  ids const whole = encoder.encode(text);
  CHECK(read_text_tokens(file, UINT64_MAX, encoder) == whole);
  for (std::uint64_t const most : {std::uint64_t{1}, std::uint64_t{1000}, std::uint64_t{100000}})
    CHECK(read_text_tokens(file, most, encoder) == ids(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(most)));
}

TEST_CASE("an unfinished character is left out") {
  CHECK(detail::whole_characters("ab") == "ab");
  CHECK(detail::whole_characters("a\xc3") == "a");
  CHECK(detail::whole_characters("a\xc3\xaf") == "a\xc3\xaf");
  CHECK(detail::whole_characters("a\xf0\x9f\x99") == "a");
  CHECK(detail::whole_characters("") == "");
  CHECK(detail::whole_characters("\x80\x80\x80\x80\x80") == "\x80\x80\x80\x80\x80");
}

TEST_CASE("lines of JSON") {
  temporary_folder folder;
  tokenizer const encoder = bundled_tokenizer();
  auto const read = [&](std::string const& text, std::uint64_t most = UINT64_MAX) {
    return read_jsonl_tokens(input_file::open(folder.write("a.jsonl", text)), most, encoder);
  };
  auto const refusal = [&](std::string const& text) -> std::string {
    try {
      (void)read(text);
    } catch (input_error const& failure) {
      return std::string(failure.what()).substr(folder.path().string().size() + 1);
    }
    return "accepted";
  };
  ids expected = encoder.encode("Hello there");
  ids const second = encoder.encode("caf\xc3\xa9\n");
  expected.insert(expected.end(), second.begin(), second.end());
  CHECK(read("{\"text\": \"Hello there\", \"n\": 1}\n\n  \r\n{\"n\": [2], \"text\": \"caf\\u00e9\\n\"}") == expected);
  CHECK(read("{\"text\": \"Hello there\"}\r\n{\"text\": \"caf\xc3\xa9\\n\"}\r\n") == expected);
  CHECK(read("{\"text\": \"Hello there\"}\nthis line is not reached", 2).size() == 2);
  CHECK(read("").empty());
  CHECK(refusal("{\"text\": \"a\"}\n{\"txt\": 1}") == "a.jsonl: line 2: field 'text': expected, not found");
  CHECK(refusal("{\"text\": 7}") == "a.jsonl: line 1: field 'text': expected a string, found 7");
  CHECK(refusal("[]") != "accepted");
  CHECK(refusal("{\"text\": \"a\"").find("a.jsonl: line 1") == 0);
  CHECK(refusal("{\"text\": \"a\xff\"}") != "accepted");
}

TEST_CASE("lines longer than one read") {
  temporary_folder folder;
  std::string const longest(3 << 20, 'x');
  input_file const file = input_file::open(folder.write("l.txt", "a\n" + longest + "\n\nlast"));
  detail::line_reader lines(file);
  std::string_view line;
  REQUIRE(lines.next(line));
  CHECK(line == "a");
  REQUIRE(lines.next(line));
  CHECK((line == longest));
  REQUIRE(lines.next(line));
  CHECK(line.empty());
  REQUIRE(lines.next(line));
  CHECK(line == "last");
  CHECK(lines.number() == 4);
  CHECK_FALSE(lines.next(line));
}

}  // namespace pipeline_token_text_test
