#include <slimtrim/io/tokenizer/word_cache.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace io_tokenizer_word_cache_test {

using namespace slimtrim;

namespace {

std::vector<token_id> ids_of(std::string const& word) {
  std::vector<token_id> ids(word.size() % 5);
  for (auto& id : ids) id = static_cast<token_id>(detail::hash_bytes(word) + static_cast<token_id>(&id - ids.data()));
  return ids;
}

}  // namespace

TEST_CASE("the cache gives what was encoded, and encodes each short word once") {
  word_cache cache;
  int encoded = 0;
  for (int pass = 0; pass < 3; ++pass) {
    for (int i = 0; i < 3000; ++i) {
      std::string const word = std::to_string(i) + std::string(static_cast<std::size_t>(i % 9), 'w');
      std::vector<token_id> out = {42};
      cache.encode(word, out, [&](std::vector<token_id>& to) {
        ++encoded;
        for (token_id const id : ids_of(word)) to.push_back(id);
      });
      std::vector<token_id> expected = {42};
      for (token_id const id : ids_of(word)) expected.push_back(id);
      REQUIRE(out == expected);
    }
  }
  CHECK(encoded == 3000);
  CHECK(cache.size() == 3000);
  cache.clear();
  CHECK(cache.size() == 0);
}

TEST_CASE("long and empty words pass through") {
  word_cache cache;
  for (std::string const& word : {std::string(), std::string(word_cache::longest_word + 1, 'x')}) {
    for (int pass = 0; pass < 2; ++pass) {
      std::vector<token_id> out;
      cache.encode(word, out, [](std::vector<token_id>& to) { to.push_back(7); });
      CHECK(out == std::vector<token_id>{7});
    }
  }
  CHECK(cache.size() == 0);
}

}  // namespace io_tokenizer_word_cache_test
