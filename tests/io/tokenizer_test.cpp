// The tokenizer as a whole. Expected ids were computed with the Hugging Face tokenizers library 0.23.3 from the same
// JSON; the shared files hold a real vocabulary and difficult text.
#include <slimtrim/io/tokenizer.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

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
