// Hand-made tokenizer.json documents, small enough to be read by eye and rich enough to exercise every part.
#pragma once

#include <slimtrim/io/tokenizer/byte_level.hpp>

#include <nlohmann/json.hpp>

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace small_tokenizers {

using json = nlohmann::ordered_json;

inline std::vector<std::string> parts(std::string const& text, char separator) {
  std::vector<std::string> out(1);
  for (char const c : text) {
    if (c == separator)
      out.emplace_back();
    else
      out.back().push_back(c);
  }
  return out;
}

inline std::string joined(std::string const& merge) {
  std::string out;
  for (auto const& part : parts(merge, ' ')) out += part;
  return out;
}

inline json assemble(json vocab, std::vector<std::string> const& merges, json const& pre_tokenizer, json const& decoder,
                     json const& normalizer, json const& changes) {
  json added = json::array();
  std::size_t next = vocab.size();
  json::number_unsigned_t begin = 0;
  for (std::string const content : {"<s>", "</s>", "<mask>"}) {
    auto const id = vocab.contains(content) ? vocab[content].get<std::size_t>() : next++;
    if (content == "<s>") begin = id;
    added.push_back({{"id", id},
                     {"content", content},
                     {"single_word", false},
                     {"lstrip", content == "<mask>"},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  json model = {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", nullptr},
                {"continuing_subword_prefix", nullptr},
                {"end_of_word_suffix", nullptr},
                {"fuse_unk", false},
                {"byte_fallback", false},
                {"ignore_merges", false}};
  model.update(changes);
  model["vocab"] = std::move(vocab);
  model["merges"] = merges;
  json const start = {{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}};
  json const text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  json const processor = {
      {"type", "TemplateProcessing"},
      {"single", json::array({start, text})},
      {"pair", json::array()},
      {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", json::array({begin})}, {"tokens", json::array({"<s>"})}}}}}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", normalizer},
          {"pre_tokenizer", pre_tokenizer},
          {"post_processor", processor},
          {"decoder", decoder},
          {"model", model}};
}

/// 256 byte characters (id = byte), some merges from 256, two whole words without a merge, then the added tokens.
inline json byte_level(json const& pre_tokenizer, json const& normalizer = nullptr,
                       json const& changes = json::object()) {
  auto const merges = parts(
      "h e|l l|he ll|hell o|Ġ w|o r|Ġw or|l d|Ġwor ld|Ġ t|Ġt he|i n|Ġ Ġ|ĠĠ Ġ|Ċ Ċ|1 2|12 3|ã ģ|Ã ©|a b|b c|ab c|' s|Ġ "
      "'|a a|"
      "aa aa|Ġ Ċ",
      '|');
  json vocab = json::object();
  for (unsigned b = 0; b < 256; ++b) {
    std::string token;
    slimtrim::append_utf8(token, slimtrim::byte_level_character(static_cast<unsigned char>(b)));
    vocab[token] = b;
  }
  for (auto const& merge : merges)
    if (!vocab.contains(joined(merge))) vocab[joined(merge)] = vocab.size();
  for (char const* word : {"don't", "Ġzebra"}) vocab[word] = vocab.size();
  return assemble(std::move(vocab), merges, pre_tokenizer,
                  {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}},
                  normalizer, changes);
}

inline json prepend_and_replace() {
  return json::parse(R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
                         {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})");
}
inline json byte_fallback_decoder() {
  return json::parse(R"({"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})");
}

/// <unk> <s> </s>, 256 byte tokens, some characters, some merges, then <mask>: the shape of Mixtral's file.
inline json sentence_piece(json const& normalizer = prepend_and_replace(), json const& pre_tokenizer = nullptr,
                           json const& decoder = byte_fallback_decoder(), json const& changes = json::object()) {
  auto const merges =
      parts("▁ h|e l|▁h el|l o|▁hel lo|▁ w|o r|▁w or|l d|▁wor ld|▁ ▁|▁▁ ▁|a a|aa aa|a b|ab c|b c|é é", '|');
  json vocab = {{"<unk>", 0}, {"<s>", 1}, {"</s>", 2}};
  for (unsigned b = 0; b < 256; ++b) {
    constexpr char const* digit = "0123456789ABCDEF";
    vocab[std::string("<0x") + digit[b >> 4] + digit[b & 15U] + ">"] = vocab.size();
  }
  for (char const* c : {"▁", "a", "b", "c", "d", "e", "h", "l", "o", "r", "w", "é", ".", ",", "日"})
    vocab[c] = vocab.size();
  for (auto const& merge : merges)
    if (!vocab.contains(joined(merge))) vocab[joined(merge)] = vocab.size();
  json model = {{"unk_token", "<unk>"}, {"byte_fallback", true}, {"fuse_unk", true}};
  model.update(changes);
  return assemble(std::move(vocab), merges, pre_tokenizer, decoder, normalizer, model);
}

inline json byte_level_stage(bool add_prefix_space, bool use_regex) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", add_prefix_space}, {"trim_offsets", true}, {"use_regex", use_regex}};
}
inline json metaspace(char const* scheme, bool split) {
  return {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", split}};
}
inline json sequence(json const& stages) { return {{"type", "Sequence"}, {"pretokenizers", stages}}; }

inline constexpr char const* gpt4_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// The documents by the names that the expected ids use.
inline std::string document(std::string_view name) {
  json const plain = json::object();
  if (name == "byte_level_plain") return byte_level(byte_level_stage(false, true)).dump();
  if (name == "byte_level_prefixed") return byte_level(byte_level_stage(true, true)).dump();
  if (name == "byte_level_split") {
    json const split = {
        {"type", "Split"}, {"pattern", {{"Regex", gpt4_pattern}}}, {"behavior", "Isolated"}, {"invert", false}};
    return byte_level(sequence(json::array({split, byte_level_stage(false, false)})), nullptr,
                      {{"ignore_merges", true}})
        .dump();
  }
  if (name == "byte_level_nfc_digits") {
    json const digits = {{"type", "Digits"}, {"individual_digits", true}};
    json const punctuation = {{"type", "Punctuation"}, {"behavior", "Isolated"}};
    return byte_level(sequence(json::array({digits, punctuation, byte_level_stage(false, true)})), {{"type", "NFC"}})
        .dump();
  }
  if (name == "byte_fallback") return sentence_piece().dump();
  if (name == "unknown_fused")
    return sentence_piece(prepend_and_replace(), nullptr, byte_fallback_decoder(), {{"byte_fallback", false}}).dump();
  if (name == "unknown_single")
    return sentence_piece(prepend_and_replace(), nullptr, byte_fallback_decoder(),
                          {{"byte_fallback", false}, {"fuse_unk", false}})
        .dump();
  if (name == "metaspace_first")
    return sentence_piece(nullptr, metaspace("first", true), metaspace("first", true)).dump();
  return sentence_piece(nullptr, metaspace("always", false), metaspace("always", false)).dump();
}

}  // namespace small_tokenizers
