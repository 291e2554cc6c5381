// The two ways of merging against the definition, written as plain loops over strings.
#include <slimtrim/io/tokenizer/bpe.hpp>

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace io_tokenizer_bpe_test {

using namespace slimtrim;

namespace {

using rules = std::vector<std::pair<std::string, std::string>>;

vocabulary vocabulary_of(std::string const& letters, rules const& merges) {
  vocabulary v;
  for (char const c : letters) v.insert(std::string(1, c), v.size());
  for (auto const& [left, right] : merges) v.insert(left + right, v.size());
  return v;
}

bpe_model model_of(std::string const& letters, rules const& merges, bpe_options options = {}) {
  vocabulary v = vocabulary_of(letters, merges);
  merge_table table;
  for (std::uint32_t i = 0; i < merges.size(); ++i)
    table.insert(*v.find(merges[i].first), *v.find(merges[i].second), {i, *v.find(merges[i].first + merges[i].second)});
  return {std::move(v), std::move(table), options};
}

// The definition: while any pair has a rule, merge the leftmost pair of lowest rank.
std::vector<std::string> merged_by_definition(std::string const& word, rules const& merges) {
  std::vector<std::string> symbols;
  for (char const c : word) symbols.emplace_back(1, c);
  for (;;) {
    std::size_t best_rank = merges.size(), best = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i)
      for (std::size_t r = 0; r < best_rank; ++r)
        if (merges[r].first == symbols[i] && merges[r].second == symbols[i + 1]) best_rank = r, best = i;
    if (best_rank == merges.size()) return symbols;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

}  // namespace

TEST_CASE("short and long words merge as the definition says") {
  std::uint32_t state = 12345;
  auto const random = [&](std::uint32_t below) {
    state = state * 1664525U + 1013904223U;
    return (state >> 12) % below;
  };
  for (int round = 0; round < 40; ++round) {
    rules merges;
    std::vector<std::string> known = {"a", "b", "c"};
    for (int i = 0; i < 25; ++i) {
      std::string const left = known[random(static_cast<std::uint32_t>(known.size()))];
      std::string const right = known[random(static_cast<std::uint32_t>(known.size()))];
      bool repeated = false;
      for (auto const& [l, r] : merges) repeated = repeated || (l == left && r == right);
      if (repeated) continue;
      merges.emplace_back(left, right);
      known.push_back(left + right);
    }
    bpe_model const model = model_of("abc", merges);
    bpe_workspace work;
    for (std::size_t const length : {0U, 1U, 2U, 3U, 31U, 32U, 33U, 34U, 90U}) {
      std::string word;
      for (std::size_t i = 0; i < length; ++i) word.push_back(static_cast<char>('a' + random(round % 3 == 0 ? 2 : 3)));
      std::vector<token_id> ids;
      model.encode_word(word, work, ids);
      std::vector<std::string> found;
      for (token_id const id : ids) found.emplace_back(model.tokens().token(id));
      CHECK(found == merged_by_definition(word, merges));
      std::vector<token_id> from_bytes;
      model.encode_bytes(word, work, from_bytes);  // letters stand for themselves
      CHECK(from_bytes == ids);
    }
  }
}

TEST_CASE("characters outside the vocabulary") {
  bpe_workspace work;
  auto const encode = [&](bpe_model const& model, std::string const& word) {
    std::vector<token_id> ids;
    model.encode_word(word, work, ids);
    return ids;
  };
  using ids = std::vector<token_id>;
  std::string const word = "xay\u00e9b";
  CHECK(encode(model_of("?ab", {}), word) == ids{1, 2});
  CHECK(encode(model_of("?ab", {}, {.unknown = 0}), word) == ids{0, 1, 0, 0, 2});
  CHECK(encode(model_of("?ab", {}, {.unknown = 0, .fuse_unknown = true}), word) == ids{0, 1, 0, 2});

  vocabulary v;
  for (std::string const token : {"?", "a", "b", "<0xC3>", "<0xA9>"}) v.insert(token, v.size());
  bpe_model const bytes(v, {}, {.unknown = 0, .byte_fallback = true});
  CHECK(encode(bytes, "a\u00e9b") == ids{1, 3, 4, 2});
  CHECK(encode(bytes, "\u00e8") == ids{0});             // <0xA8> is missing, so no byte is spelled
  CHECK(encode(bytes, "x\u00e9b") == ids{3, 4, 0, 2});  // the unknown waits for the next known character
}

TEST_CASE("a word that is a token may ignore the merges") {
  rules const merges = {{"a", "b"}};
  auto build = [&](bool ignore) {
    vocabulary v = vocabulary_of("abc", merges);
    v.insert("abc", v.size());
    merge_table table;
    table.insert(0, 1, {0, 3});
    return bpe_model(v, table, {.ignore_merges = ignore});
  };
  bpe_workspace work;
  std::vector<token_id> out;
  build(false).encode_word("abc", work, out);
  build(true).encode_word("abc", work, out);
  build(true).encode_bytes("abc", work, out);
  CHECK(out == std::vector<token_id>{3, 2, 4, 4});
}

}  // namespace io_tokenizer_bpe_test
