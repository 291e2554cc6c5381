// From the regular expressions of tokenizer.json (Oniguruma, Ruby syntax, Unicode) to those of PCRE2.
//
// The two agree on most of what tokenizers use. What they spell alike but mean differently is rewritten (white space,
// word characters, \v, \h) or refused (word boundaries, nested classes and intersections, {n,m}+, named groups, option
// m), so that a pattern either means the same or is not accepted.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/tokenizer/unicode.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace slimtrim {
inline namespace v0 {
namespace detail {

/// Why a pattern was not accepted; the caller adds file and field.
struct regex_refusal {
  std::string expected;
  std::string found;
};

class regex_translator {
 public:
  explicit regex_translator(std::string_view pattern) : in_(pattern) {}

  /// The PCRE2 pattern for options UTF, UCP and MULTILINE. Throws `regex_refusal`.
  [[nodiscard]] std::string translate() {
    while (at_ < in_.size()) {
      char const c = in_[at_];
      if (c == '\\')
        escape();
      else if (in_class_)
        class_character(c);
      else
        plain_character(c);
    }
    if (in_class_) refuse("a class that ends", "none");
    return out_;
  }

 private:
  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  static bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
  static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
  [[nodiscard]] bool next_is(std::string_view what) const { return in_.substr(at_, what.size()) == what; }

  [[noreturn]] static void refuse(std::string expected, std::string_view found) {
    throw regex_refusal{std::move(expected), shown_text(found)};
  }

  void copy(std::size_t count) {
    out_.append(in_, at_, count);
    at_ += count;
  }
  void replace(std::size_t count, std::string_view by) {
    out_.append(by);
    at_ += count;
  }

  void class_character(char c) {
    if (c == '[') refuse("a class without a class inside", in_.substr(at_));
    if (next_is("&&")) refuse("a class without an intersection", in_.substr(at_));
    if (c == ']') in_class_ = false;
    copy(1);
  }

  void plain_character(char c) {
    if (c == '[') {
      in_class_ = true;
      copy(1);
      if (next_is("^")) copy(1);
      if (next_is("]")) copy(1);  // literal when it comes first
    } else if (c == '(') {
      group();
    } else if (c == '{') {
      repeat();
    } else {
      copy(1);
    }
  }

  void group() {
    if (next_is("(*")) refuse("a group", in_.substr(at_));
    if (!next_is("(?")) return copy(1);
    for (std::string_view const start : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?-i:", "(?i)", "(?-i)"})
      if (next_is(start)) return copy(start.size());
    refuse("one of the groups (?: (?= (?! (?<= (?<! (?> (?i: (?-i:", in_.substr(at_, 5));
  }

  void repeat() {
    std::size_t end = at_ + 1;
    bool digits = false;
    while (end < in_.size() && is_digit(in_[end])) ++end, digits = true;
    bool const comma = end < in_.size() && in_[end] == ',';
    if (comma) ++end;
    bool upper = false;
    while (comma && end < in_.size() && is_digit(in_[end])) ++end, upper = true;
    bool const closed = end < in_.size() && in_[end] == '}';
    if (!closed || (!digits && !upper)) return replace(1, "\\{");
    if (!digits) {
      out_ += "{0";
      ++at_;
    }
    copy(end + 1 - at_);
    // A possessive repeat to PCRE2, a repeated repeat to Oniguruma.
    if (next_is("+")) refuse("no + after {n,m}", in_.substr(at_));
    if (!comma && next_is("?")) refuse("no ? after {n}", in_.substr(at_));
  }

  void escape() {
    if (at_ + 1 >= in_.size()) refuse("a character after \\", "\\");
    char const c = in_[at_ + 1];
    if (!is_letter(c) && !is_digit(c)) return copy(1 + utf8_length(c));
    switch (c) {
      case 's':
        return replace(2, "\\p{White_Space}");
      case 'S':
        return replace(2, "\\P{White_Space}");
      case 'w':
        return word(false);
      case 'W':
        return word(true);
      case 'h':
        return replace(2, in_class_ ? "0-9A-Fa-f" : "[0-9A-Fa-f]");
      case 'v':
        return replace(2, "\\x0B");
      case 'd':
        return replace(2, "\\p{Nd}");
      case 'D':
        return replace(2, "\\P{Nd}");
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        return copy(2);
      case 'A':
      case 'z':
      case 'Z':
        if (in_class_) break;
        return copy(2);
      case 'p':
      case 'P':
        return property();
      case 'x':
        return hexadecimal();
      case 'u':
        return four_digits();
      default:
        break;
    }
    refuse("an escape that both regex dialects read alike", in_.substr(at_, 2));
  }

  void word(bool negated) {
    constexpr std::string_view members = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
    if (in_class_ && negated) refuse("\\W outside a class", "\\W");
    if (!in_class_) out_ += negated ? "[^" : "[";
    out_ += members;
    if (!in_class_) out_ += "]";
    at_ += 2;
  }

  void property() {
    std::size_t const close = in_.find('}', at_);
    if (at_ + 2 >= in_.size() || in_[at_ + 2] != '{' || close == std::string_view::npos)
      refuse("\\p{Name}", in_.substr(at_));
    copy(close + 1 - at_);
  }

  void hexadecimal() {
    std::size_t end = at_ + 2;
    if (end < in_.size() && in_[end] == '{') {
      while (++end < in_.size() && is_hex(in_[end])) {
      }
      if (end >= in_.size() || in_[end] != '}') refuse("\\x{HEX}", in_.substr(at_));
      return copy(end + 1 - at_);
    }
    while (end < in_.size() && end < at_ + 4 && is_hex(in_[end])) ++end;
    // Two digits above 7F are a raw byte to Oniguruma, a code point to PCRE2.
    if (end == at_ + 2 || (end == at_ + 4 && in_[at_ + 2] >= '8'))
      refuse("\\x00 to \\x7F, or \\x{HEX}", in_.substr(at_));
    copy(end - at_);
  }

  void four_digits() {
    std::string_view const digits = in_.substr(at_ + 2, 4);
    bool good = digits.size() == 4;
    for (char const d : digits) good = good && is_hex(d);
    if (!good) refuse("\\uHHHH", in_.substr(at_));
    out_ += "\\x{";
    out_ += digits;
    out_ += "}";
    at_ += 6;
  }

  std::string_view in_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

}  // namespace detail
}  // namespace v0
}  // namespace slimtrim
