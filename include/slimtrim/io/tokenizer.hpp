// tokenizer.json: text to token ids and back, as the Hugging Face `tokenizers` library does it.
//
// BPE models: byte-level (GPT-2, Llama-3, Qwen, DeepSeek) and SentencePiece-like with byte fallback (Llama-2, Mixtral).
// What the file asks for and this reader does not know is refused by name; nothing is ignored but `truncation` and
// `padding`, which concern batches.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/tokenizer/added_tokens.hpp>
#include <slimtrim/io/tokenizer/bpe.hpp>
#include <slimtrim/io/tokenizer/bpe_loader.hpp>
#include <slimtrim/io/tokenizer/decoder.hpp>
#include <slimtrim/io/tokenizer/document.hpp>
#include <slimtrim/io/tokenizer/normalizer.hpp>
#include <slimtrim/io/tokenizer/post_processor.hpp>
#include <slimtrim/io/tokenizer/pre_tokenizer.hpp>
#include <slimtrim/io/tokenizer/word_cache.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct encode_options {
  /// Put the tokens of the post-processor (begin and end of text) around the ids.
  bool add_special_tokens = true;
};

struct decode_options {
  /// Leave out tokens that are marked special.
  bool skip_special_tokens = true;
};

/// Buffers and word cache of one tokenizer for one thread; keeping one between calls saves time and changes nothing.
class tokenizer_workspace {
 private:
  friend class tokenizer;
  pre_tokenizer_workspace words_;
  bpe_workspace merging_;
  word_cache cache_;
  std::shared_ptr<int const> owner_;  // keeps the identity alive, so that no other tokenizer can get it
};

/// Immutable after construction; may be used by many threads at once, each with its own workspace.
class tokenizer {
 public:
  /// From the text of a tokenizer.json; `name` is what messages call it. Throws `input_error` naming file and field.
  [[nodiscard]] static tokenizer from_json(std::string_view text, std::string const& name = "tokenizer.json",
                                           tokenizer_limits const& limits = {}) {
    detail::tokenizer_document document = detail::read_tokenizer_document(text, name, limits);
    nlohmann::json const rest = std::move(document.rest);
    detail::json_field const root(rest, name);
    tokenizer result(detail::load_bpe(std::move(document), root.at("model")));
    if (auto const field = root.find("normalizer")) result.normalizer_ = normalizer(*field);
    if (auto const field = root.find("pre_tokenizer")) result.pre_tokenizer_ = pre_tokenizer(*field);
    if (auto const field = root.find("decoder")) result.decoder_ = decoder(*field);
    if (auto const field = root.find("added_tokens")) result.add_tokens(*field);
    if (auto const field = root.find("post_processor")) {
      result.post_processor_ = post_processor(*field);
      for (auto const* ids : {&result.post_processor_.before(), &result.post_processor_.after()})
        for (token_id const id : *ids)
          if (!result.contains(id)) field->fail("ids of tokens", std::to_string(id));
    }
    return result;
  }

  /// From a file. Throws `input_error`, also when the file is missing or larger than `limits.file_bytes`.
  [[nodiscard]] static tokenizer from_file(std::filesystem::path const& path, tokenizer_limits const& limits = {}) {
    std::string const name = path.string();
    std::ifstream file(path, std::ios::binary);
    if (!file || std::filesystem::is_directory(path)) throw input_error(name, "expected a file that can be read");
    std::string text;
    std::vector<char> block(std::size_t{1} << 16);
    while (text.size() <= limits.file_bytes) {
      file.read(block.data(), static_cast<std::streamsize>(block.size()));
      if (file.gcount() == 0) break;
      text.append(block.data(), static_cast<std::size_t>(file.gcount()));
    }
    return from_json(text, name, limits);
  }

  /// The ids of `text`; empty for an empty text, but for special tokens. Ill-formed UTF-8 is read as U+FFFD.
  /// Near linear in the length of the text. Deterministic. Throws `error` for text of more than 4 GiB in one word.
  [[nodiscard]] std::vector<token_id> encode(std::string_view text, tokenizer_workspace& work,
                                             encode_options options = {}) const {
    if (work.owner_ != identity_) {
      work.cache_.clear();
      work.owner_ = identity_;
    }
    std::string repaired;
    if (!is_valid_utf8(text)) {
      repaired = replace_invalid_utf8(text);
      text = repaired;
    }
    std::vector<token_id> ids;
    ids.reserve(text.size() / 4 + 8);
    if (options.add_special_tokens) ids = post_processor_.before();
    auto const push = [&](token_id id) { ids.push_back(id); };
    auto& matches = work.words_.matches;
    raw_finder_.for_each_section(text, matches, push, [&](byte_range section) {
      std::string_view part = text.substr(section.begin, section.end - section.begin);
      std::string normal;
      if (!normalizer_.empty()) {
        normal = normalizer_.apply(part, matches);
        part = normal;
      }
      normal_finder_.for_each_section(part, matches, push, [&](byte_range rest) {
        encode_section(part.substr(rest.begin, rest.end - rest.begin), section.begin == 0 && rest.begin == 0, work,
                       ids);
      });
    });
    if (options.add_special_tokens)
      ids.insert(ids.end(), post_processor_.after().begin(), post_processor_.after().end());
    return ids;
  }
  [[nodiscard]] std::vector<token_id> encode(std::string_view text, encode_options options = {}) const {
    tokenizer_workspace work;
    return encode(text, work, options);
  }

  /// The text of `ids`. Ids that are no token are left out; bytes that are not UTF-8 become U+FFFD.
  [[nodiscard]] std::string decode(std::span<token_id const> ids, decode_options options = {}) const {
    std::vector<std::string> texts;
    texts.reserve(ids.size());
    for (token_id const id : ids) {
      if (!contains(id)) continue;
      if (options.skip_special_tokens && is_special(id)) continue;
      auto const changed = decoded_as_.find(id);
      texts.emplace_back(changed == decoded_as_.end() ? token_of(id) : std::string_view(changed->second));
    }
    regex_workspace work;
    return decoder_.apply(std::move(texts), work);
  }

  /// How many tokens there are, added ones included.
  [[nodiscard]] std::size_t vocab_size() const { return model_.tokens().size() + extra_.size(); }
  /// One more than the largest id; a model needs at least as many rows.
  [[nodiscard]] token_id id_bound() const { return std::max(model_.tokens().id_bound(), extra_.id_bound()); }

  [[nodiscard]] std::optional<token_id> id_of(std::string_view token) const {
    auto const id = extra_.find(token);
    return id ? id : model_.tokens().find(token);
  }
  [[nodiscard]] bool contains(token_id id) const { return extra_.contains(id) || model_.tokens().contains(id); }
  /// The token as the vocabulary spells it. Throws `error` when there is no such id.
  [[nodiscard]] std::string_view token_of(token_id id) const {
    return extra_.contains(id) ? extra_.token(id) : model_.tokens().token(id);
  }
  [[nodiscard]] bool is_special(token_id id) const { return std::binary_search(special_.begin(), special_.end(), id); }

 private:
  explicit tokenizer(bpe_model model) : model_(std::move(model)) {}

  void encode_section(std::string_view text, bool at_start, tokenizer_workspace& work,
                      std::vector<token_id>& ids) const {
    bool const bytes = pre_tokenizer_.gives_bytes();
    bool const cuts = !bytes && model_.options().cuts_at_space_mark && !model_.options().ignore_merges;
    auto const encode_word = [&](std::string_view word) {
      work.cache_.encode(word, ids, [&](std::vector<token_id>& out) {
        if (bytes)
          model_.encode_bytes(word, work.merging_, out);
        else
          model_.encode_word(word, work.merging_, out);
      });
    };
    pre_tokenizer_.for_each_word(text, at_start, work.words_, [&](std::string_view word) {
      if (!cuts) return encode_word(word);
      // Without a pre-tokenizer the text is one word: cutting it where nothing merges makes the cache useful.
      std::size_t begin = 0;
      for (std::size_t at = word.find(detail::space_mark, 1); at != std::string_view::npos;
           at = word.find(detail::space_mark, at + 1)) {
        if (at - begin < 3 || word.substr(at - 3, 3) == detail::space_mark) continue;
        encode_word(word.substr(begin, at - begin));
        begin = at;
      }
      encode_word(word.substr(begin));
    });
  }

  void add_tokens(detail::json_field const& list) {
    std::vector<token_finder::needle> raw;
    std::vector<token_finder::needle> normal;
    std::optional<token_id> largest;
    regex_workspace work;
    for (std::size_t i = 0; i < list.size(); ++i) {
      auto const field = list.at(i);
      added_token token;
      token.content = field.at("content").string();
      token.single_word = field.boolean("single_word", false);
      token.lstrip = field.boolean("lstrip", false);
      token.rstrip = field.boolean("rstrip", false);
      token.special = field.boolean("special", false);
      token.normalized = field.boolean("normalized", !token.special);
      if (token.content.empty()) continue;
      token.id = checked_id(field, token.content, largest);
      largest = std::max(largest.value_or(0), token.id);
      if (token.special) special_.push_back(token.id);
      std::string text = token.normalized ? normalizer_.apply(token.content, work) : token.content;
      if (text != token.content) decoded_as_.emplace(token.id, text);
      (token.normalized ? normal : raw).push_back({std::move(text), std::move(token)});
    }
    std::sort(special_.begin(), special_.end());
    // The reference lists special tokens first, which decides between equal texts.
    auto const special_first = [](token_finder::needle const& a, token_finder::needle const& b) {
      return a.flags.special && !b.flags.special;
    };
    std::stable_sort(raw.begin(), raw.end(), special_first);
    std::stable_sort(normal.begin(), normal.end(), special_first);
    raw_finder_ = token_finder(std::move(raw));
    normal_finder_ = token_finder(std::move(normal));
  }

  // The reference gives an added token the id that its text has already, or the next free one, whatever the file says.
  // A file that says something else would mean other ids to other readers, and is refused.
  token_id checked_id(detail::json_field const& field, std::string const& content, std::optional<token_id> largest) {
    auto const stated = field.at("id").natural();
    std::size_t const base = model_.tokens().size();
    std::size_t const next = !largest || *largest < base ? base : std::size_t{*largest} + 1;
    auto const known = id_of(content);
    std::size_t const expected = known ? *known : next;
    if (stated != expected) field.at("id").fail(std::to_string(expected));
    if (known) return *known;
    if (model_.tokens().contains(static_cast<token_id>(next)) ||
        extra_.insert(content, next) != vocabulary::outcome::inserted)
      field.at("id").fail("an id that no other token has");
    return static_cast<token_id>(next);
  }

  std::shared_ptr<int const> identity_ = std::make_shared<int const>(0);
  bpe_model model_;
  normalizer normalizer_;
  pre_tokenizer pre_tokenizer_;
  decoder decoder_;
  post_processor post_processor_;
  vocabulary extra_;                                      // added tokens that the model does not have
  std::unordered_map<token_id, std::string> decoded_as_;  // added tokens that the normalizer changes
  std::vector<token_id> special_;
  token_finder raw_finder_;
  token_finder normal_finder_;
};

}  // namespace v0
}  // namespace slimtrim
