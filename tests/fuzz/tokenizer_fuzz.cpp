// libFuzzer entry for tokenizer.json and for text: the first byte chooses which of the two the rest is.
//
//   clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iinclude -Itests
//           tests/fuzz/tokenizer_fuzz.cpp -lpcre2-8 -lutf8proc -o tokenizer_fuzz
//   ./tokenizer_fuzz -max_len=4096 -timeout=1 -rss_limit_mb=512
#include <slimtrim/io/tokenizer.hpp>

#include "io/tokenizer/small_tokenizers.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace slimtrim;

// Any document is either refused with `error` or gives a tokenizer that can be used.
void check_document(std::string_view json) {
  try {
    tokenizer const t = tokenizer::from_json(json);
    std::vector<token_id> const ids = t.encode(" Hello w\u00f6rld\n\u65e5 <s> 12");
    for (token_id const id : ids)
      if (!t.contains(id)) std::abort();
    (void)t.decode(ids);
  } catch (error const&) {
    return;
  }
}

// Any bytes are encoded, the same with and without a warm cache; where every byte has a token, decoding gives the text
// back, ill-formed parts as U+FFFD.
void check_text(std::string_view text) {
  static tokenizer const byte_level = tokenizer::from_json(small_tokenizers::document("byte_level_plain"));
  static tokenizer const split = tokenizer::from_json(small_tokenizers::document("byte_level_split"));
  static tokenizer const fallback = tokenizer::from_json(small_tokenizers::document("byte_fallback"));
  static tokenizer_workspace warm;
  bool const has_added = text.find('<') != std::string_view::npos;
  for (tokenizer const* const t : {&byte_level, &split, &fallback}) {
    std::vector<token_id> const ids = t->encode(text);
    if (ids != t->encode(text, warm) || ids != t->encode(text, warm)) std::abort();
    std::string const back = t->decode(ids);
    if (t != &fallback && !has_added && back != replace_invalid_utf8(text)) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  std::string_view const rest(reinterpret_cast<char const*>(data) + 1, size - 1);
  if (data[0] % 2 == 0)
    check_document(rest);
  else
    check_text(rest);
  return 0;
}
