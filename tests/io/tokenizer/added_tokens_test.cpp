#include <slimtrim/io/tokenizer/added_tokens.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace io_tokenizer_added_tokens_test {

using namespace slimtrim;

namespace {

// Tokens as <id>, the rest as it is, sections separated by bars.
std::string sections(std::vector<added_token> const& tokens, std::string const& text) {
  std::vector<token_finder::needle> needles;
  for (auto const& token : tokens) needles.push_back({token.content, token});
  regex_workspace work;
  std::string out;
  token_finder(std::move(needles))
      .for_each_section(
          text, work, [&](token_id id) { out.append("<").append(std::to_string(id)).append(">|"); },
          [&](byte_range r) { out += text.substr(r.begin, r.end - r.begin) + "|"; });
  return out;
}

added_token token(token_id id, char const* content) {
  added_token t;
  t.id = id;
  t.content = content;
  return t;
}

}  // namespace

TEST_CASE("the leftmost, then the longest token is found") {
  std::vector<added_token> const tokens = {token(1, "ab"), token(2, "abcd"), token(3, "bc"), token(4, "cd"),
                                           token(5, "a")};
  CHECK(sections(tokens, "xabcdab") == "x|<2>|<1>|");
  CHECK(sections(tokens, "abce") == "<1>|ce|");
  CHECK(sections(tokens, "bcd") == "<3>|d|");
  CHECK(sections(tokens, "aab") == "<5>|<1>|");
  CHECK(sections(tokens, "").empty());
  CHECK(sections({}, "ab") == "ab|");
  CHECK(sections({token(1, "")}, "ab") == "ab|");
  CHECK(sections({token(1, "x"), token(2, "x")}, "x") == "<1>|");
}

TEST_CASE("flags") {
  added_token left = token(1, "<m>"), right = token(2, "<n>"), word = token(3, "\u00e9");
  left.lstrip = true;
  right.rstrip = true;
  word.single_word = true;
  CHECK(sections({left, right}, "a \u3000<m> b <n> \nc") == "a|<1>| b |<2>|c|");
  CHECK(sections({left, right}, "<n> <m>") == "<2>|<1>|");  // white space that is taken stays taken
  CHECK(sections({left, right}, "  <m>") == "<1>|");
  CHECK(sections({word}, "\u00e9 a\u00e9 \u00e9\u0301 _\u00e9 (\u00e9)") ==
        "<3>| a\u00e9 \u00e9\u0301 _\u00e9 (|<3>|)|");
}

}  // namespace io_tokenizer_added_tokens_test
