// The tokenizer as a whole. Expected ids were computed with the Hugging Face tokenizers library 0.23.3 from the same
// JSON; the shared files hold a real vocabulary and difficult text.
#include <slimtrim/io/tokenizer.hpp>

#include "io/tokenizer/expected_ids.hpp"
#include "io/tokenizer/small_tokenizers.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace io_tokenizer_test {

using namespace slimtrim;

namespace {

std::string contents(std::filesystem::path const& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

void check_shared(char const* text_name, char const* ids_name) {
  std::filesystem::path const data = SLIMTRIM_SHARED_DATA;
  if (!std::filesystem::exists(data / text_name)) {
    MESSAGE("skipped: " << (data / text_name).string() << " is absent");
    return;
  }
  tokenizer const t = tokenizer::from_file(data / "tiny-mixtral-wikitext2/tokenizer.json");
  CHECK(t.vocab_size() == 2048);
  CHECK(t.id_bound() == 2048);
  std::string const text = contents(data / text_name);
  std::string const bytes = contents(data / ids_name);
  std::vector<token_id> expected;
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2)
    expected.push_back(static_cast<unsigned char>(bytes[i]) |
                       (static_cast<token_id>(static_cast<unsigned char>(bytes[i + 1])) << 8));
  std::vector<token_id> const ids = t.encode(text);
  CHECK(ids.size() == expected.size());
  CHECK((ids == expected));
  CHECK((t.decode(ids) == text));
}

}  // namespace

TEST_CASE("the validation text has exactly the ids beside it") {
  check_shared("wikitext-2/valid.txt", "wikitext-2/valid.u16");
}

TEST_CASE("difficult Unicode text has exactly the ids beside it") {
  check_shared("tokenizer/hard.txt", "tokenizer/hard.u16");
}

TEST_CASE("small tokenizers give the ids and texts of the reference library") {
  for (auto const& expected : small_tokenizers::expected()) {
    CAPTURE(expected.name);
    tokenizer const t = tokenizer::from_json(small_tokenizers::document(expected.name));
    tokenizer_workspace kept;
    for (auto const& [text, ids, decoded] : expected.texts) {
      std::string const shown = text;
      CAPTURE(shown);
      CHECK(t.encode(text) == ids);
      CHECK(t.encode(text, kept) == ids);
      CHECK(t.decode(ids) == decoded);
      std::vector<token_id> const bare = t.encode(text, {.add_special_tokens = false});
      CHECK(bare == std::vector<token_id>(ids.begin() + 1, ids.end()));
    }
  }
}

TEST_CASE("a kept workspace serves several tokenizers, one after another") {
  tokenizer_workspace work;
  std::vector<token_id> first;
  {
    tokenizer const a = tokenizer::from_json(small_tokenizers::document("byte_level_plain"));
    first = a.encode("hello world", work);
  }
  tokenizer const b = tokenizer::from_json(small_tokenizers::document("byte_fallback"));
  CHECK(b.encode("hello world", work) == b.encode("hello world"));
  tokenizer const c = tokenizer::from_json(small_tokenizers::document("byte_level_plain"));
  CHECK(c.encode("hello world", work) == first);
}

TEST_CASE("text that is cut for the cache has the ids of text encoded whole") {
  // A rule across the space mark forbids the cut; it is one that this text never uses.
  auto document = nlohmann::ordered_json::parse(small_tokenizers::document("byte_fallback"));
  tokenizer const cut = tokenizer::from_json(document.dump());
  auto& vocab = document["model"]["vocab"];
  auto const bound = document["added_tokens"][2]["id"].get<int>();
  vocab["\u65e5\u2581"] = bound;
  document["added_tokens"][2]["id"] = bound + 1;
  document["model"]["merges"].push_back("\u65e5 \u2581");
  tokenizer const whole = tokenizer::from_json(document.dump());
  std::string text;
  for (int i = 0; i < 300; ++i)
    text += i % 7 == 0 ? "   hello" : i % 5 == 0 ? " world\u2581\u2581 aaa" : " w\u00f6rld abcab ";
  CHECK(cut.encode(text) == whole.encode(text));
  CHECK(whole.encode("\u65e5 \u65e5").size() == 4);  // <s>, the mark, the merged pair, the character
}

TEST_CASE("ill-formed UTF-8 is encoded as U+FFFD") {
  tokenizer const t = tokenizer::from_json(small_tokenizers::document("byte_level_plain"));
  CHECK(t.encode("a\xFF\xE3\x81z") == t.encode("a\uFFFD\uFFFDz"));
  CHECK(t.decode(t.encode("a\xFFz")) == "a\uFFFDz");
}

TEST_CASE("tokens and ids") {
  tokenizer const t = tokenizer::from_json(small_tokenizers::document("byte_level_plain"));
  CHECK(t.vocab_size() == 288);
  CHECK(t.id_bound() == 288);
  CHECK(t.id_of("hello") == token_id{259});
  CHECK(t.id_of("<mask>") == token_id{287});
  CHECK(t.token_of(287) == "<mask>");
  CHECK(t.is_special(287));
  CHECK(!t.is_special(259));
  CHECK(!t.id_of("absent"));
  CHECK(!t.contains(288));
  CHECK_THROWS_AS((void)t.token_of(288), error);
  std::vector<token_id> const ids = {285, 104, 4000000000U, 287};
  CHECK(t.decode(ids) == "h");  // what is no token is left out
  CHECK(t.decode(ids, {.skip_special_tokens = false}) == "<s>h<mask>");
  CHECK(t.decode({}).empty());
}

TEST_CASE("one long word is encoded in near linear time and merges to the end") {
  tokenizer const t = tokenizer::from_json(small_tokenizers::document("byte_level_plain"));
  std::vector<token_id> const ids = t.encode(std::string(400'003, 'a'), {.add_special_tokens = false});
  CHECK(ids.size() == 100'002);  // aaaa .. aaaa, aa, a
  CHECK(ids.front() == t.id_of("aaaa"));
  CHECK(ids.back() == t.id_of("a"));
}

TEST_CASE("documents that contradict themselves are refused by field") {
  auto const refuse = [](auto&& change, char const* message) {
    auto document = nlohmann::ordered_json::parse(small_tokenizers::document("byte_fallback"));
    change(document);
    CHECK_THROWS_WITH_AS((void)tokenizer::from_json(document.dump(), "t.json"), message, input_error);
  };
  using document = nlohmann::ordered_json;
  refuse([](document& d) { d["added_tokens"][2]["id"] = 4000; },
         "t.json: added_tokens[2].id: expected 292, found 4000");
  refuse([](document& d) { d["added_tokens"][0]["id"] = 2; }, "t.json: added_tokens[0].id: expected 1, found 2");
  refuse([](document& d) { d["model"]["vocab"]["\u65e5"] = 292; },
         "t.json: added_tokens[2].id: expected an id that no other token has, found 292");
  refuse([](document& d) { d["post_processor"]["special_tokens"]["<s>"]["ids"][0] = 293; },
         "t.json: post_processor: expected ids of tokens, found 293");
  refuse([](document& d) { d["model"]["type"] = "Unigram"; }, "t.json: model.type: expected BPE, found \"Unigram\"");
  refuse([](document& d) { d["normalizer"]["normalizers"][1]["type"] = "Nmt"; },
         "t.json: normalizer.normalizers[1].type: expected NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip or Sequence, "
         "found \"Nmt\"");
  refuse([](document& d) { d.erase("model"); }, "t.json: model: expected a value, found none");
}

TEST_CASE("every prefix of a document is refused, and no damaged byte does harm") {
  std::string const text = small_tokenizers::document("byte_fallback");
  for (std::size_t n = 0; n < text.size(); n += 37)
    CHECK_THROWS_AS((void)tokenizer::from_json(text.substr(0, n)), input_error);
  for (std::size_t n = 0; n < text.size(); n += 29) {
    std::string damaged = text;
    damaged[n] = static_cast<char>(damaged[n] ^ 0x11);
    try {
      tokenizer const t = tokenizer::from_json(damaged);
      (void)t.decode(t.encode("hello w\u00f6rld <mask>"));
    } catch (error const&) {
      // Refused, or refused to expand the text: both are answers.
    }
  }
}

TEST_CASE("a file that is missing, a folder or a git-LFS pointer is refused") {
  CHECK_THROWS_AS((void)tokenizer::from_file("/nonexistent/tokenizer.json"), input_error);
  CHECK_THROWS_AS((void)tokenizer::from_file("/"), input_error);
  CHECK_THROWS_AS((void)tokenizer::from_json("version https://git-lfs.github.com/spec/v1\n"), input_error);
  CHECK_THROWS_AS((void)tokenizer::from_json(""), input_error);
}

}  // namespace io_tokenizer_test
