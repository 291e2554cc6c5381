// tokenizer.json as llama.cpp's keys: which kind, which pre-tokenizer, tokens and scores, and what has no name there.
#include <slimtrim/pipeline/format/gguf_tokenizer.hpp>

#include <io/tokenizer/small_tokenizers.hpp>
#include <pipeline/support.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace pipeline_format_gguf_tokenizer_test {

using namespace slimtrim;
using pipeline_tests::has;
using pipeline_tests::message_of;
using json = small_tokenizers::json;

namespace {

ordered_json const no_ids = ordered_json::object();

gguf_metadata keys_of(std::string const& text, index_t vocabulary = 400, ordered_json const& config = no_ids) {
  return gguf_tokenizer_metadata(text, "t.json", vocabulary, config);
}
std::string text_at(gguf_metadata const& keys, char const* key) {
  auto const* const value = find_gguf_value<std::string>(keys, key);
  return value == nullptr ? "absent" : *value;
}
json without_post_processor(json document) {
  document["post_processor"] = nullptr;
  return document;
}

}  // namespace

TEST_CASE("byte-level tokenizers keep their merges and get llama.cpp's name of the cutting") {
  using namespace small_tokenizers;
  json const plain = without_post_processor(byte_level(byte_level_stage(false, true)));
  auto const keys = keys_of(plain.dump());
  CHECK(text_at(keys, "tokenizer.ggml.model") == "gpt2");
  CHECK(text_at(keys, "tokenizer.ggml.pre") == "gpt-2");
  auto const& merges = *find_gguf_array<std::string>(keys, "tokenizer.ggml.merges");
  CHECK(merges.size() == plain["model"]["merges"].size());
  CHECK(merges[3] == "hell o");
  auto const& tokens = *find_gguf_array<std::string>(keys, "tokenizer.ggml.tokens");
  auto const& kinds = *find_gguf_array<std::int32_t>(keys, "tokenizer.ggml.token_type");
  REQUIRE(tokens.size() == 400);
  REQUIRE(kinds.size() == 400);
  for (auto const& [token, id] : plain["model"]["vocab"].items()) {
    CHECK(tokens[id.get<std::size_t>()] == token);
    CHECK(kinds[id.get<std::size_t>()] == 1);
  }
  for (json const& added : plain["added_tokens"]) {
    CHECK(tokens[added["id"].get<std::size_t>()] == added["content"].get<std::string>());
    CHECK(kinds[added["id"].get<std::size_t>()] == 3);
  }
  CHECK(tokens.back() == "[PAD399]");
  CHECK(kinds.back() == 5);
  CHECK(*find_gguf_value<bool>(keys, "tokenizer.ggml.add_bos_token") == false);
  CHECK(find_gguf_value<std::uint32_t>(keys, "tokenizer.ggml.bos_token_id") == nullptr);

  auto const split = [&](std::string_view pattern, bool ignore_merges) {
    json const stage = {
        {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
    json const document = without_post_processor(byte_level(
        sequence(json::array({stage, byte_level_stage(false, false)})), nullptr, {{"ignore_merges", ignore_merges}}));
    return text_at(keys_of(document.dump()), "tokenizer.ggml.pre");
  };
  CHECK(split(detail::llama3_pattern, true) == "llama-bpe");
  CHECK(split(detail::llama3_pattern, false) == "dbrx");
  CHECK(split(detail::qwen2_pattern, false) == "qwen2");
}

TEST_CASE("SentencePiece-like tokenizers get scores in the place of merges") {
  using namespace small_tokenizers;
  json const document = sentence_piece();
  ordered_json const config{{"bos_token_id", 1}, {"eos_token_id", ordered_json::array({2, 5})}};
  auto const keys = keys_of(document.dump(), 400, config);
  CHECK(text_at(keys, "tokenizer.ggml.model") == "llama");
  auto const& tokens = *find_gguf_array<std::string>(keys, "tokenizer.ggml.tokens");
  auto const& scores = *find_gguf_array<float>(keys, "tokenizer.ggml.scores");
  auto const& kinds = *find_gguf_array<std::int32_t>(keys, "tokenizer.ggml.token_type");
  CHECK(kinds[0] == 2);
  CHECK(kinds[1] == 3);
  CHECK(kinds[3] == 6);
  CHECK(tokens[3] == "<0x00>");
  // The earlier merge wins: scores fall with the rank.
  auto const& merges = document["model"]["merges"];
  float before = 1;
  for (std::size_t i = 0; i < merges.size(); ++i) {
    std::size_t const id = document["model"]["vocab"][joined(merges[i].get<std::string>())].get<std::size_t>();
    CHECK(scores[id] == -static_cast<float>(i));
    CHECK(scores[id] < before);
    before = scores[id];
  }
  CHECK(*find_gguf_value<bool>(keys, "tokenizer.ggml.add_space_prefix"));
  CHECK(*find_gguf_value<bool>(keys, "tokenizer.ggml.add_bos_token"));
  CHECK_FALSE(*find_gguf_value<bool>(keys, "tokenizer.ggml.add_eos_token"));
  CHECK(*find_gguf_value<std::uint32_t>(keys, "tokenizer.ggml.eos_token_id") == 2);
  json const never = sentence_piece(nullptr, metaspace("never", false), metaspace("never", false));
  CHECK_FALSE(*find_gguf_value<bool>(keys_of(never.dump(), 400, config), "tokenizer.ggml.add_space_prefix"));
}

TEST_CASE("what llama.cpp has no name for") {
  using namespace small_tokenizers;
  auto const refusal = [](json const& document, index_t vocabulary = 400, ordered_json const& config = no_ids) {
    return message_of<input_error>([&] { (void)keys_of(document.dump(), vocabulary, config); });
  };
  json const plain = without_post_processor(byte_level(byte_level_stage(false, true)));
  CHECK(refusal(plain) == "nothing thrown");
  CHECK(has(refusal(plain, 100), "t.json: expected ids below 100"));
  CHECK(has(refusal(byte_level(byte_level_stage(true, true))), "no name for its normalizer and pre_tokenizer"));
  CHECK(has(refusal(json::parse(document("byte_level_nfc_digits"))), "no name"));
  CHECK(has(refusal(without_post_processor(byte_level(byte_level_stage(false, true), {{"type", "NFKC"}}))), "no name"));
  CHECK(refusal(without_post_processor(byte_level(byte_level_stage(false, true), {{"type", "NFC"}}))) ==
        "nothing thrown");
  CHECK(has(refusal(sentence_piece(nullptr, metaspace("first", true), metaspace("first", true))), "no name"));
  CHECK(has(refusal(json::parse(document("unknown_fused"))), "no name"));
  // It puts <s> in front, and config.json does not call that the begin of text.
  CHECK(has(refusal(sentence_piece()), "post_processor"));
  CHECK(has(refusal(sentence_piece(), 400, {{"bos_token_id", 2}}), "post_processor"));
}

}  // namespace pipeline_format_gguf_tokenizer_test
