#include <slimtrim/io/tokenizer/vocabulary.hpp>

#include <doctest/doctest.h>

#include <map>
#include <string>

namespace io_tokenizer_vocabulary_test {

using namespace slimtrim;

TEST_CASE("tokens are found by text and by id") {
  vocabulary v;
  std::map<std::string, token_id> expected;
  for (token_id i = 0; i < 5000; ++i) {
    std::string const token = std::string(i % 13, 'x') + std::to_string(i * 7919U);
    REQUIRE(v.insert(token, 2 * i) == vocabulary::outcome::inserted);
    expected[token] = 2 * i;
  }
  CHECK(v.size() == 5000);
  CHECK(v.id_bound() == 9999);
  for (auto const& [token, id] : expected) {
    REQUIRE(v.find(token) == id);
    REQUIRE(v.token(id) == token);
  }
  CHECK(!v.find("absent"));
  CHECK(!v.contains(1));
  CHECK(!v.contains(10000));
  CHECK_THROWS_AS((void)v.token(1), error);
}

TEST_CASE("what contradicts is not inserted") {
  vocabulary v;
  CHECK(!v.find(""));
  CHECK(v.insert("", 0) == vocabulary::outcome::inserted);
  CHECK(v.find("") == token_id{0});
  CHECK(v.insert("a", 3) == vocabulary::outcome::inserted);
  CHECK(v.insert("a", 4) == vocabulary::outcome::token_exists);
  CHECK(v.insert("b", 3) == vocabulary::outcome::id_exists);
  CHECK(v.insert("c", vocabulary::id_limit) == vocabulary::outcome::id_too_large);
  CHECK(v.insert("c", ~std::uint64_t{0}) == vocabulary::outcome::id_too_large);
  CHECK(v.size() == 2);
  CHECK(v.id_bound() == 4);
  CHECK(!v.contains(4));
}

}  // namespace io_tokenizer_vocabulary_test
