// tokenizer.json read in one pass: vocabulary and merges go straight into flat tables, the small rest into a tree.
//
// Real files have some 10^5 tokens and merges; a tree of them would take hundreds of megabytes. Size, depth and number
// of values are limited, and duplicate keys are refused, so a hostile file costs no more than its size.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/tokenizer/unicode.hpp>
#include <slimtrim/io/tokenizer/vocabulary.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// What a tokenizer.json may cost. Above any of these: `input_error`.
struct tokenizer_limits {
  std::size_t file_bytes = std::size_t{128} << 20;
  std::size_t depth = 32;
  /// Values outside model.vocab and model.merges.
  std::size_t values = 1'000'000;
};

namespace detail {

/// Pairs of token texts in the order of the file, in one arena.
class merge_list {
 public:
  void push(std::string_view left, std::string_view right) {
    entries_.push_back(
        {text_.size(), static_cast<std::uint32_t>(left.size()), static_cast<std::uint32_t>(right.size())});
    text_.append(left).append(right);
  }
  [[nodiscard]] std::size_t size() const { return entries_.size(); }
  [[nodiscard]] std::string_view left(std::size_t i) const { return view(i).substr(0, entries_[i].left); }
  [[nodiscard]] std::string_view right(std::size_t i) const { return view(i).substr(entries_[i].left); }
  [[nodiscard]] std::string_view joined(std::size_t i) const { return view(i); }

 private:
  struct entry {
    std::size_t offset;
    std::uint32_t left;
    std::uint32_t right;
  };
  [[nodiscard]] std::string_view view(std::size_t i) const {
    return std::string_view(text_).substr(entries_[i].offset, std::size_t{entries_[i].left} + entries_[i].right);
  }
  std::string text_;
  std::vector<entry> entries_;
};

struct tokenizer_document {
  nlohmann::json rest;  // model.vocab and model.merges are left as an empty object and an empty array
  vocabulary tokens;
  merge_list merges;
};

/// SAX handler that fills a `tokenizer_document`.
class tokenizer_document_reader {
 public:
  using json = nlohmann::json;

  tokenizer_document_reader(tokenizer_document& into, std::string const& file, tokenizer_limits const& limits)
      : into_(into), file_(file), limits_(limits) {}

  bool null() { return value(nullptr); }
  bool boolean(bool v) { return value(v); }
  bool number_integer(json::number_integer_t v) { return value(v); }
  bool number_float(json::number_float_t v, json::string_t const&) { return value(v); }
  bool binary(json::binary_t&) { return false; }

  bool number_unsigned(json::number_unsigned_t v) {
    if (where() != place::vocab) return value(v);
    switch (into_.tokens.insert(stack_.back().key, v)) {
      case vocabulary::outcome::inserted:
        break;
      case vocabulary::outcome::token_exists:
        fail("every token once", shown_text(stack_.back().key) + " twice");
      case vocabulary::outcome::id_exists:
        fail("every id once", "id " + std::to_string(v) + " twice");
      case vocabulary::outcome::id_too_large:
        fail("an id below " + std::to_string(vocabulary::id_limit), std::to_string(v));
    }
    return true;
  }

  bool string(json::string_t& v) {
    if (where() == place::merges) {
      merge_line(v);
    } else if (where() == place::merge_pair) {
      if (stack_.back().index == 0) left_ = v;
      if (stack_.back().index == 1) into_.merges.push(left_, v);
      ++stack_.back().index;
    } else {
      return value(std::move(v));
    }
    return true;
  }

  bool key(json::string_t& v) {
    frame& top = stack_.back();
    top.key = std::move(v);
    if (top.where == place::tree && top.container->contains(top.key)) fail("every key once", "it twice");
    return true;
  }
  bool start_object(std::size_t) {
    json* const container = put(json::object());
    push({container, at_model("vocab") ? place::vocab : place::tree, {}, 0});
    return true;
  }
  bool start_array(std::size_t) {
    if (where() == place::merges) {
      push({nullptr, place::merge_pair, {}, 0});
      return true;
    }
    if (at_model("vocab")) fail("an object of tokens and ids, as BPE has", "an array");
    json* const container = put(json::array());
    push({container, at_model("merges") ? place::merges : place::tree, {}, 0});
    return true;
  }
  bool end_object() { return close(); }
  bool end_array() {
    if (where() == place::merge_pair && stack_.back().index != 2)
      fail("two tokens", std::to_string(stack_.back().index));
    return close();
  }
  bool parse_error(std::size_t position, std::string const&, nlohmann::detail::exception const&) {
    throw input_error(file_, "expected JSON, found a syntax error at byte " + std::to_string(position));
  }

 private:
  enum class place { top, tree, vocab, merges, merge_pair };
  struct frame {
    json* container;  // null for a merge pair
    place where;
    std::string key;    // the member being read
    std::size_t index;  // the element being read
  };

  [[nodiscard]] place where() const { return stack_.empty() ? place::top : stack_.back().where; }
  [[nodiscard]] bool at_model(char const* member) const {
    return stack_.size() == 2 && stack_[0].key == "model" && stack_[1].where == place::tree &&
           stack_[1].container->is_object() && stack_[1].key == member;
  }

  void push(frame next) {
    if (stack_.size() >= limits_.depth) fail("at most " + std::to_string(limits_.depth) + " levels", "more");
    stack_.push_back(std::move(next));
  }

  bool close() {
    stack_.pop_back();
    if (!stack_.empty()) ++stack_.back().index;
    return true;
  }

  // Stores a value of the tree and returns where it lies.
  json* put(json v) {
    switch (where()) {
      case place::vocab:
        fail("an id", v.type_name());
      case place::merges:
        fail("\"left right\" or [\"left\", \"right\"]", v.type_name());
      case place::merge_pair:
        fail("a token", v.type_name());
      case place::top:
        into_.rest = std::move(v);
        return &into_.rest;
      case place::tree:
        break;
    }
    if (++values_ > limits_.values) fail("at most " + std::to_string(limits_.values) + " values", "more");
    frame& top = stack_.back();
    if (top.container->is_object()) return &(*top.container)[top.key].operator=(std::move(v));
    top.container->push_back(std::move(v));
    return &top.container->back();
  }

  template <class T>
  bool value(T&& v) {
    put(json(std::forward<T>(v)));
    if (!stack_.empty()) ++stack_.back().index;
    return true;
  }

  void merge_line(std::string const& line) {
    // Lists copied from merges.txt keep its first line, which is no merge.
    if (line.rfind("#version", 0) != 0) {
      std::size_t const space = line.find(' ');
      if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos)
        fail("two tokens with one space between them", shown_text(line));
      into_.merges.push(std::string_view(line).substr(0, space), std::string_view(line).substr(space + 1));
    }
    ++stack_.back().index;
  }

  [[noreturn]] void fail(std::string const& expected, std::string const& found) const {
    std::string path;
    for (frame const& f : stack_) {
      if (path.size() > 200) break;
      if (f.container == nullptr || !f.container->is_object()) {
        path.append("[").append(std::to_string(f.index)).append("]");
      } else {
        if (!path.empty()) path.append(".");
        path.append(clipped(f.key));
      }
    }
    throw input_error(file_, path + ": expected " + expected + ", found " + found);
  }
  [[nodiscard]] static std::string clipped(std::string const& key) {
    std::string const shown = shown_text(key);
    return shown.substr(1, shown.size() - 2);
  }

  tokenizer_document& into_;
  std::string const& file_;
  tokenizer_limits limits_;
  std::vector<frame> stack_;
  std::string left_;
  std::size_t values_ = 0;
};

/// Reads `text`; `file` is the name that messages use. Throws `input_error`.
[[nodiscard]] inline tokenizer_document read_tokenizer_document(std::string_view text, std::string const& file,
                                                                tokenizer_limits const& limits) {
  if (text.size() > limits.file_bytes)
    throw input_error(
        file, "expected at most " + std::to_string(limits.file_bytes) + " bytes, found " + std::to_string(text.size()));
  if (text.rfind("version https://git-lfs", 0) == 0)
    throw input_error(file, "expected JSON, found a git-LFS pointer: fetch the file itself");
  // The JSON lexer takes a NUL for the end of the text and would not see what follows.
  if (std::size_t const nul = text.find('\0'); nul != std::string_view::npos)
    throw input_error(file, "expected JSON, found a NUL at byte " + std::to_string(nul));
  tokenizer_document document;
  tokenizer_document_reader reader(document, file, limits);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  if (!document.rest.is_object())
    throw input_error(file, std::string("expected an object, found ") + document.rest.type_name());
  return document;
}

}  // namespace detail
}  // namespace v0
}  // namespace slimtrim
