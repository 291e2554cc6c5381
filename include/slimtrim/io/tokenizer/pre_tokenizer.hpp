// Cuts text into the words that are merged separately, as Hugging Face's pre-tokenizers do.
//
// The stages of a Sequence are run depth first, word by word, so nothing is stored but the words that are being cut.
// Where a final ByteLevel stage would spell bytes in its alphabet, the raw bytes are handed on instead.
#pragma once

#include <slimtrim/io/tokenizer/byte_level.hpp>
#include <slimtrim/io/tokenizer/field.hpp>
#include <slimtrim/io/tokenizer/regex.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What becomes of the matches when a text is cut.
enum class split_behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// Cuts `text` at the matches of `pattern` and calls `piece(std::string_view)` for each non-empty piece, in order.
/// `invert` exchanges matches and the text between them. Linear, as far as the pattern is.
template <class F>
void split_text(std::string_view text, regex const& pattern, split_behavior behavior, bool invert,
                regex_workspace& work, F&& piece) {
  byte_range held{0, 0};  // not yet handed on, because the next piece may join it
  bool previous = false;  // whether the last piece was a match
  auto const give = [&](byte_range r) {
    if (r.begin < r.end) piece(text.substr(r.begin, r.end - r.begin));
  };
  pattern.for_each_piece(text, work, [&](byte_range range, bool matched) {
    bool const match = matched != invert;
    switch (behavior) {
      case split_behavior::removed:
        if (!match) give(range);
        return;
      case split_behavior::isolated:
        give(range);
        return;
      case split_behavior::merged_with_previous:
        if (match && !previous)
          held.end = range.end;
        else
          give(std::exchange(held, range));
        break;
      case split_behavior::merged_with_next:
        if (!match && previous)
          held.end = range.end;
        else
          give(std::exchange(held, range));
        break;
      case split_behavior::contiguous:
        if (match == previous)
          held.end = range.end;
        else
          give(std::exchange(held, range));
        break;
    }
    previous = match;
  });
  give(held);
}

/// Buffers of `pre_tokenizer`, one per thread.
struct pre_tokenizer_workspace {
  regex_workspace matches;
  std::vector<std::string> texts;  // one a stage
};

class pre_tokenizer {
 public:
  /// Handing on the text uncut.
  pre_tokenizer() = default;

  /// From the `pre_tokenizer` field. Throws `input_error` naming what is unknown or malformed.
  explicit pre_tokenizer(detail::json_field const& field) { add(field); }

  /// Whether words are raw bytes, to be spelled in the byte alphabet.
  [[nodiscard]] bool gives_bytes() const { return !stages_.empty() && stages_.back().what == kind::byte_level; }
  [[nodiscard]] bool empty() const { return stages_.empty(); }

  /// Calls `word(std::string_view)` for each word of `text` (valid UTF-8); the view is valid during the call only.
  /// `at_start` says that the text begins where the input does (Metaspace's scheme "first" asks).
  template <class F>
  void for_each_word(std::string_view text, bool at_start, pre_tokenizer_workspace& work, F&& word) const {
    work.texts.resize(stages_.size());
    run(0, text, at_start, work, word);
  }

 private:
  enum class kind { split, byte_level, metaspace };
  enum class scheme { always, first, never };
  struct stage {
    kind what = kind::split;
    std::optional<regex> pattern{};  // none: do not cut
    split_behavior behavior = split_behavior::isolated;
    bool invert = false;
    bool prefix_space = false;
    scheme prepend = scheme::always;
    std::string replacement{};
  };

  template <class F>
  void run(std::size_t level, std::string_view text, bool at_start, pre_tokenizer_workspace& work, F& word) const {
    if (text.empty()) return;
    if (level == stages_.size()) return word(text);
    stage const& s = stages_[level];
    bool const last = level + 1 == stages_.size();
    std::string& buffer = work.texts[level];
    if (s.what == kind::metaspace) {
      to_metaspace(s, text, at_start, buffer);
      text = buffer;
    } else if (s.prefix_space && text.front() != ' ') {
      buffer.assign(" ").append(text);
      text = buffer;
    }
    char const* const start = text.data();
    std::string spelled;
    auto const pass = [&](std::string_view piece) {
      bool const first = at_start && piece.data() == start;
      if (s.what == kind::byte_level && !last) {
        spelled.clear();
        append_byte_level(spelled, piece);
        piece = spelled;
      }
      run(level + 1, piece, first, work, word);
    };
    if (s.pattern)
      split_text(text, *s.pattern, s.behavior, s.invert, work.matches, pass);
    else
      pass(text);
  }

  static void to_metaspace(stage const& s, std::string_view text, bool at_start, std::string& out) {
    out.clear();
    bool const begins = text.front() == ' ' || text.substr(0, s.replacement.size()) == s.replacement;
    if (!begins && (s.prepend == scheme::always || (s.prepend == scheme::first && at_start))) out += s.replacement;
    for (char const c : text) {
      if (c == ' ')
        out += s.replacement;
      else
        out += c;
    }
  }

  void add(detail::json_field const& field) {
    std::string const& type = field.at("type").string();
    if (type == "Sequence") {
      auto const list = field.at("pretokenizers");
      for (std::size_t i = 0; i < list.size(); ++i) add(list.at(i));
      return;
    }
    if (stages_.size() >= 64) field.fail("at most 64 pre-tokenizers", "more");
    stage s;
    if (type == "ByteLevel") {
      s.what = kind::byte_level;
      s.prefix_space = field.boolean("add_prefix_space", true);
      if (field.boolean("use_regex", true)) s.pattern.emplace(gpt2_pattern, field);
    } else if (type == "Split") {
      s.pattern = pattern_of(field.at("pattern"));
      s.behavior = behavior_of(field.at("behavior"));
      s.invert = field.boolean("invert", false);
    } else if (type == "Digits") {
      s.pattern.emplace(R"(\p{N})", field);
      if (!field.boolean("individual_digits", false)) s.behavior = split_behavior::contiguous;
    } else if (type == "Punctuation") {
      s.pattern.emplace(R"([\p{P}!-/:-@\[-`{-~])", field);
      if (auto const behavior = field.find("behavior")) s.behavior = behavior_of(*behavior);
    } else if (type == "Whitespace") {
      // The reference uses another engine here, to which joiners are word characters too.
      s.pattern.emplace(R"([\w\p{Join_Control}]+|[^\w\p{Join_Control}\s]+)", field);
      s.behavior = split_behavior::removed;
      s.invert = true;
    } else if (type == "WhitespaceSplit") {
      s.pattern.emplace(R"(\s)", field);
      s.behavior = split_behavior::removed;
    } else if (type == "Metaspace") {
      add_metaspace(s, field);
    } else {
      field.at("type").fail(
          "ByteLevel, Split, Digits, Punctuation, Whitespace, WhitespaceSplit, Metaspace or Sequence");
    }
    stages_.push_back(std::move(s));
  }

  static void add_metaspace(stage& s, detail::json_field const& field) {
    s.what = kind::metaspace;
    append_utf8(s.replacement, field.at("replacement").character());
    auto const named = field.find("prepend_scheme");
    std::string const name = named ? named->string() : field.boolean("add_prefix_space", true) ? "always" : "never";
    if (name == "always")
      s.prepend = scheme::always;
    else if (name == "first")
      s.prepend = scheme::first;
    else if (name == "never")
      s.prepend = scheme::never;
    else
      named->fail("always, first or never");
    if (field.boolean("split", true)) s.pattern = regex::literal(s.replacement, field);
    s.behavior = split_behavior::merged_with_next;
  }

  static regex pattern_of(detail::json_field const& field) {
    if (auto const literal = field.find("String")) return regex::literal(literal->string(), *literal);
    auto const pattern = field.at("Regex");
    return regex(pattern.string(), pattern);
  }

  static split_behavior behavior_of(detail::json_field const& field) {
    std::string const& name = field.string();
    if (name == "Removed") return split_behavior::removed;
    if (name == "Isolated") return split_behavior::isolated;
    if (name == "MergedWithPrevious") return split_behavior::merged_with_previous;
    if (name == "MergedWithNext") return split_behavior::merged_with_next;
    if (name == "Contiguous") return split_behavior::contiguous;
    field.fail("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
  }

  static constexpr std::string_view gpt2_pattern =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

  std::vector<stage> stages_;
};

}  // namespace v0
}  // namespace slimtrim
