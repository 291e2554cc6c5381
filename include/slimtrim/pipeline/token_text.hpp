// Token ids from text: a plain text file, or a `.jsonl` whose lines are objects with a `text` field.
//
// Only as much text is read and encoded as the wanted tokens need.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/io/input_file.hpp>
#include <slimtrim/io/json.hpp>
#include <slimtrim/io/json_fields.hpp>
#include <slimtrim/io/printable.hpp>
#include <slimtrim/io/tokenizer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

/// Hands out the lines of a file in order, without their ends, in memory for one line.
class line_reader {
 public:
  explicit line_reader(input_file const& file) : file_(file) {}

  /// False at the end. The view lives until the next call.
  [[nodiscard]] bool next(std::string_view& line) {
    for (;;) {
      std::size_t const end = text_.find('\n', searched_);
      if (end != text_.npos) return take(line, end, end + 1);
      searched_ = text_.size();
      if (read_ == file_.size()) return begin_ < text_.size() && take(line, text_.size(), text_.size());
      if (text_.size() - begin_ > most_line_bytes)
        throw input_error(file_.place(), "line " + std::to_string(number_ + 1) + ": expected at most " +
                                             std::to_string(most_line_bytes) + " bytes");
      text_.erase(0, begin_);
      begin_ = 0;
      searched_ = text_.size();
      std::size_t const part = static_cast<std::size_t>(std::min<std::uint64_t>(1 << 20, file_.size() - read_));
      text_.resize(searched_ + part);
      file_.read_at(read_, std::as_writable_bytes(std::span<char>(text_).subspan(searched_)));
      read_ += part;
    }
  }
  /// The number of the line that was handed out last, from 1.
  [[nodiscard]] std::uint64_t number() const { return number_; }

 private:
  static constexpr std::size_t most_line_bytes = std::size_t{256} << 20;

  bool take(std::string_view& line, std::size_t end, std::size_t next) {
    line = std::string_view(text_).substr(begin_, end - begin_);
    begin_ = searched_ = next;
    ++number_;
    return true;
  }

  input_file const& file_;
  std::string text_;
  std::size_t begin_ = 0;
  std::size_t searched_ = 0;
  std::uint64_t read_ = 0;
  std::uint64_t number_ = 0;
};

/// `text` without an unfinished UTF-8 sequence at its end.
[[nodiscard]] inline std::string_view whole_characters(std::string_view text) {
  for (std::size_t back = 1; back <= std::min<std::size_t>(4, text.size()); ++back) {
    auto const byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xC0u) == 0x80u) continue;
    return byte >= 0xC0 && utf8_sequence_length(text.substr(text.size() - back)) == 0
               ? text.substr(0, text.size() - back)
               : text;
  }
  return text;
}

}  // namespace detail

/// The first `most` ids of a text file, or all when it has fewer. A long text is encoded from its beginning up to a
/// point well behind the last wanted token, so that the cut does not show. Near linear in what is read; throws what
/// reading the file and encoding its text throw.
[[nodiscard]] inline std::vector<std::uint32_t> read_text_tokens(input_file const& file, std::uint64_t most,
                                                                 tokenizer const& encoder) {
  constexpr std::uint64_t margin_tokens = 4096;
  std::uint64_t const wanted = most > UINT64_MAX / 16 ? UINT64_MAX : most * 8 + (std::uint64_t{1} << 16);
  std::string text;
  for (std::uint64_t bytes = std::min(file.size(), wanted);; bytes = std::min(file.size(), bytes * 2)) {
    std::size_t const have = text.size();
    text.resize(static_cast<std::size_t>(bytes));
    file.read_at(have, std::as_writable_bytes(std::span<char>(text).subspan(have)));
    bool const all = bytes == file.size();
    std::vector<std::uint32_t> ids = encoder.encode(all ? std::string_view(text) : detail::whole_characters(text));
    if (!all && ids.size() < most + margin_tokens) continue;
    ids.resize(static_cast<std::size_t>(std::min<std::uint64_t>(ids.size(), most)));
    return ids;
  }
}

/// The first `most` ids of a `.jsonl` file: the texts of its lines, each encoded by itself, one after another. Empty
/// lines are skipped. Throws `input_error` naming the line that is not an object with a string `text`.
[[nodiscard]] inline std::vector<std::uint32_t> read_jsonl_tokens(input_file const& file, std::uint64_t most,
                                                                  tokenizer const& encoder) {
  std::vector<std::uint32_t> ids;
  detail::line_reader lines(file);
  tokenizer_workspace work;
  json_limits limits;
  limits.most_bytes = std::uint64_t{1} << 30;
  std::string_view line;
  while (ids.size() < most && lines.next(line)) {
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    std::string const place = file.place() + ": line " + std::to_string(lines.number());
    std::string const text = require_string(parse_json(line, place, limits), "text", place);
    std::vector<std::uint32_t> const part = encoder.encode(text, work);
    ids.insert(ids.end(), part.begin(), part.end());
  }
  ids.resize(static_cast<std::size_t>(std::min<std::uint64_t>(ids.size(), most)));
  return ids;
}

}  // namespace v0
}  // namespace slimtrim
