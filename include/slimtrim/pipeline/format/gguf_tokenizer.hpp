// A tokenizer.json as the metadata from which llama.cpp makes its tokenizer.
//
// Byte-level BPE becomes "gpt2" with merges; SentencePiece-like BPE with byte fallback (Llama-2, Mixtral) becomes
// "llama", whose scores take the place of the merges: a token's score is minus the rank of the first merge that makes
// it. llama.cpp knows pre-tokenizers by name only, so one that has no name there is refused.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/checkpoint.hpp>
#include <slimtrim/io/gguf_value.hpp>
#include <slimtrim/io/json.hpp>
#include <slimtrim/io/json_fields.hpp>
#include <slimtrim/io/tokenizer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

/// What llama.cpp calls a pre-tokenizer that cuts by one pattern and then spells bytes, if it has it.
struct gguf_pattern {
  std::string_view regex;
  bool ignore_merges;
  std::string_view name;
};
inline constexpr std::string_view llama3_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view qwen2_pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr gguf_pattern gguf_patterns[] = {
    {llama3_pattern, true, "llama-bpe"}, {llama3_pattern, false, "dbrx"}, {qwen2_pattern, false, "qwen2"}};

// The stages of a pre-tokenizer, or of a normalizer, in order.
[[nodiscard]] inline std::vector<nlohmann::json> stages_of(nlohmann::json const& field, char const* list) {
  if (field.is_null()) return {};
  if (field.value("type", "") != "Sequence") return {field};
  std::vector<nlohmann::json> stages;
  for (nlohmann::json const& each : field.at(list))
    for (nlohmann::json& stage : stages_of(each, list)) stages.push_back(std::move(stage));
  return stages;
}

[[nodiscard]] inline std::string split_pattern(nlohmann::json const& stage) {
  if (stage.value("type", "") != "Split" || stage.value("behavior", "") != "Isolated" || stage.value("invert", false))
    return {};
  auto const pattern = stage.find("pattern");
  return pattern != stage.end() && pattern->is_object() ? pattern->value("Regex", "") : std::string();
}

// llama.cpp's name of the stages before byte-level BPE, or nothing.
[[nodiscard]] inline std::optional<std::string_view> gguf_pre_tokenizer(std::vector<nlohmann::json> const& stages,
                                                                        bool ignore_merges) {
  if (stages.empty() || stages.back().value("type", "") != "ByteLevel") return std::nullopt;
  nlohmann::json const& last = stages.back();
  if (last.value("add_prefix_space", true)) return std::nullopt;
  bool const cuts = last.value("use_regex", true);
  if (stages.size() == 1 && cuts && !ignore_merges) return "gpt-2";
  if (cuts) return std::nullopt;
  if (stages.size() == 2)
    for (gguf_pattern const& each : gguf_patterns)
      if (split_pattern(stages[0]) == each.regex && ignore_merges == each.ignore_merges) return each.name;
  // DeepSeek's: line ends, letters of alphabets, punctuation, spaces at the end, CJK characters, numbers.
  bool const deepseek = stages.size() == 7 && split_pattern(stages[0]) == "[\r\n]" &&
                        split_pattern(stages[1]).rfind("\\s?[A-Za-z\u00B5", 0) == 0 &&
                        split_pattern(stages[2]).rfind("\\s?[!-/:-~", 0) == 0 && split_pattern(stages[3]) == "\\s+$" &&
                        stages[5].value("type", "") == "Digits" && !ignore_merges;
  if (deepseek) return "deepseek-llm";
  return std::nullopt;
}

// Whether a SentencePiece-like tokenizer begins texts with a space; nothing when it is of a form that llama.cpp lacks.
[[nodiscard]] inline std::optional<bool> gguf_space_prefix(std::vector<nlohmann::json> const& normal,
                                                           std::vector<nlohmann::json> const& cut) {
  auto const marks = [&](nlohmann::json const& stage) {
    return stage.value("type", "") == "Replace" && stage.value("content", "") == space_mark &&
           stage.value("pattern", nlohmann::json::object()).value("String", "") == " ";
  };
  if (cut.empty() && normal.size() == 1 && marks(normal[0])) return false;
  if (cut.empty() && normal.size() == 2 && normal[0].value("type", "") == "Prepend" &&
      normal[0].value("prepend", "") == space_mark && marks(normal[1]))
    return true;
  if (normal.empty() && cut.size() == 1 && cut[0].value("type", "") == "Metaspace" &&
      cut[0].value("replacement", "") == space_mark && !cut[0].value("split", true))
    return cut[0].value("prepend_scheme", "always") != "never";
  return std::nullopt;
}

[[nodiscard]] inline bool is_byte_token(std::string_view token) {
  auto const hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); };
  return token.size() == 6 && token.substr(0, 3) == "<0x" && hex(token[3]) && hex(token[4]) && token[5] == '>';
}

// Writes the keys of one tokenizer.json.
class gguf_tokenizer_keys {
 public:
  gguf_tokenizer_keys(std::string_view text, std::string file, index_t vocabulary, ordered_json const& config)
      : file_(std::move(file)), vocabulary_(static_cast<std::size_t>(vocabulary)), config_(config) {
    whole_ = tokenizer::from_json(text, file_);  // everything that it checks holds from here on
    document_ = read_tokenizer_document(text, file_, {});
    if (whole_->id_bound() > vocabulary_)
      throw input_error(file_, "expected ids below " + std::to_string(vocabulary_) +
                                   " (vocab_size of config.json), found " + std::to_string(whole_->id_bound() - 1));
  }

  [[nodiscard]] gguf_metadata keys() {
    nlohmann::json const& root = document_.rest;
    nlohmann::json const none;
    auto const field = [&](char const* key) -> nlohmann::json const& {
      auto const at = root.find(key);
      return at == root.end() ? none : *at;
    };
    auto const cut = stages_of(field("pre_tokenizer"), "pretokenizers");
    auto const normal = stages_of(field("normalizer"), "normalizers");
    bool const ignore_merges = root.at("model").value("ignore_merges", false);
    bool const plain = normal.empty() || (normal.size() == 1 && normal[0].value("type", "") == "NFC");
    if (auto const name = gguf_pre_tokenizer(cut, ignore_merges); name && plain) {
      put("ggml.model", std::string("gpt2"));
      put("ggml.pre", std::string(*name));
      put_tokens();
      put_merges();
    } else if (auto const prefix = gguf_space_prefix(normal, cut);
               prefix && root.at("model").value("byte_fallback", false)) {
      put("ggml.model", std::string("llama"));
      put("ggml.pre", std::string("default"));
      put_tokens();
      put_scores();
      put("ggml.add_space_prefix", *prefix);
    } else {
      throw input_error(file_,
                        "cannot become a GGUF tokenizer: llama.cpp has no name for its normalizer and pre_tokenizer");
    }
    put_special_ids();
    return std::move(keys_);
  }

 private:
  template <class T>
  void put(char const* key, T value) {
    keys_.emplace_back(std::string("tokenizer.") + key, gguf_value(std::move(value)));
  }

  // Ids without a token, which models have to make their vocabulary a round number, get a name that no text contains.
  void put_tokens() {
    std::vector<std::string> tokens;
    std::vector<std::int32_t> kinds;
    std::optional<token_id> unknown;
    if (auto const at = document_.rest.at("model").find("unk_token");
        at != document_.rest.at("model").end() && at->is_string())
      unknown = whole_->id_of(at->get<std::string>());
    for (std::size_t i = 0; i < vocabulary_; ++i) {
      auto const id = static_cast<token_id>(i);
      if (!whole_->contains(id)) {
        tokens.push_back("[PAD" + std::to_string(i) + "]");
        kinds.push_back(5);
        continue;
      }
      std::string_view const token = whole_->token_of(id);
      tokens.emplace_back(token);
      if (unknown == id)
        kinds.push_back(2);
      else if (whole_->is_special(id))
        kinds.push_back(3);
      else if (!document_.tokens.contains(id))
        kinds.push_back(4);
      else
        kinds.push_back(is_byte_token(token) ? 6 : 1);
    }
    put("ggml.tokens", gguf_array(std::move(tokens)));
    put("ggml.token_type", gguf_array(std::move(kinds)));
  }

  void put_merges() {
    std::vector<std::string> merges;
    for (std::size_t i = 0; i < document_.merges.size(); ++i)
      merges.push_back(std::string(document_.merges.left(i)) + " " + std::string(document_.merges.right(i)));
    put("ggml.merges", gguf_array(std::move(merges)));
  }

  void put_scores() {
    std::size_t const count = document_.merges.size();
    std::vector<float> scores(vocabulary_, -static_cast<float>(count));
    for (std::size_t i = count; i > 0; --i)
      if (auto const id = whole_->id_of(document_.merges.joined(i - 1))) scores[*id] = -static_cast<float>(i - 1);
    put("ggml.scores", gguf_array(std::move(scores)));
  }

  void put_special_ids() {
    tokenizer_workspace work;
    auto const around = whole_->encode("", work);  // what the post-processor puts around nothing
    for (auto const& [key, name] :
         {std::pair{"bos_token_id", "ggml.bos_token_id"}, std::pair{"eos_token_id", "ggml.eos_token_id"},
          std::pair{"pad_token_id", "ggml.padding_token_id"}}) {
      // Some models have several ends of text: the first is the usual one.
      ordered_json const* id = find_field(config_, key);
      if (id != nullptr && id->is_array() && !id->empty()) id = &(*id)[0];
      if (id == nullptr || !id->is_number_integer() || id->get<std::int64_t>() < 0) continue;
      if (id->get<std::uint64_t>() >= vocabulary_) continue;
      put(name, static_cast<std::uint32_t>(id->get<std::uint64_t>()));
      if (name == std::string_view("ggml.bos_token_id")) begin_ = id->get<std::uint64_t>();
      if (name == std::string_view("ggml.eos_token_id")) end_ = id->get<std::uint64_t>();
    }
    bool const begins = !around.empty() && begin_ && around.front() == *begin_;
    bool const ends = around.size() > (begins ? 1U : 0U) && end_ && around.back() == *end_;
    if (around.size() != (begins ? 1U : 0U) + (ends ? 1U : 0U))
      throw input_error(file_,
                        "cannot become a GGUF tokenizer: its post_processor adds other tokens than bos_token_id and "
                        "eos_token_id of config.json");
    put("ggml.add_bos_token", begins);
    put("ggml.add_eos_token", ends);
  }

  std::string file_;
  std::size_t vocabulary_;
  ordered_json const& config_;
  std::optional<tokenizer> whole_;
  tokenizer_document document_;
  gguf_metadata keys_;
  std::optional<std::uint64_t> begin_;
  std::optional<std::uint64_t> end_;
};

}  // namespace detail

/// The tokenizer's keys. `text`: the whole tokenizer.json; `file`: its name in messages; `config`: config.json.
/// Throws `input_error` for a file that is not sound, ids beyond the vocabulary, and what llama.cpp cannot do.
[[nodiscard]] inline gguf_metadata gguf_tokenizer_metadata(std::string_view text, std::string const& file,
                                                           index_t vocabulary, ordered_json const& config) {
  return detail::gguf_tokenizer_keys(text, file, vocabulary, config).keys();
}

}  // namespace v0
}  // namespace slimtrim
