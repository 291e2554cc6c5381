#include <slimtrim/io/tokenizer/regex_syntax.hpp>

#include <doctest/doctest.h>

#include <string>

namespace io_tokenizer_regex_syntax_test {

using namespace slimtrim;

namespace {

std::string translated(std::string const& pattern) { return detail::regex_translator(pattern).translate(); }

}  // namespace

TEST_CASE("what both dialects read alike is kept") {
  for (std::string const pattern :
       {"", "a|b", R"([^\r\n\p{L}\p{N}]?\p{L}+)", R"(\p{N}{1,3})", R"((?i:'s|'t))",
        R"(x(?!y)(?=z)(?<=a)(?<!b)(?>c)(?:d))", R"([!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~])", R"(a{2}b{2,}c{2,3}?)",
        "[\u4e00-\u9fa5]+", R"(\A.\z)", R"([]a])", R"(\x41\x{3042})"})
    CHECK(translated(pattern) == pattern);
}

TEST_CASE("what they read differently is rewritten") {
  CHECK(translated(R"(\s\S)") == R"(\p{White_Space}\P{White_Space})");
  CHECK(translated(R"([^\s\d])") == R"([^\p{White_Space}\p{Nd}])");
  CHECK(translated(R"(\w)") == R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}])");
  CHECK(translated(R"(\W[\w'])") == R"([^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}][\p{Alphabetic}\p{M}\p{Nd}\p{Pc}'])");
  CHECK(translated(R"(\h[\h]\v)") == R"([0-9A-Fa-f][0-9A-Fa-f]\x0B)");
  CHECK(translated(R"(a{,3}{x})") == R"(a{0,3}\{x})");
  CHECK(translated(R"(\u3042)") == R"(\x{3042})");
}

TEST_CASE("what cannot be rewritten is refused") {
  for (std::string const pattern :
       {"\\",       "[a",         R"(\b)",      R"(\B)",          R"(\1)",     R"(\R)",   R"(\X)",         R"(\K)",
        R"(\k<a>)", R"([\b])",    R"([a[b]])",  R"([[:alpha:]])", R"([a&&b])", R"([\W])", R"((?<name>a))", R"((?m:a))",
        R"((?#c))", R"((*UCP)a)", R"(a{1,3}+)", R"(a{3}?)",       R"(\pL)",    R"(\p{L)", R"(\xE3)",       R"(\x{30)",
        R"(\x)",    R"(\u30)",    R"(\Qa)"}) {
    CAPTURE(pattern);
    CHECK_THROWS_AS((void)translated(pattern), detail::regex_refusal);
  }
}

}  // namespace io_tokenizer_regex_syntax_test
