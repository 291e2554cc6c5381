// The four Unicode normalisation forms (Unicode standard annex 15), over utf8proc's tables.
//
// Text is handled in stretches that end at a line feed, which never composes or reorders with anything, so memory is
// that of the longest line. Runs of combining marks are sorted in O(n log n): utf8proc's own loop is quadratic.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/io/tokenizer/unicode.hpp>

#include <utf8proc.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

enum class unicode_form { nfc, nfd, nfkc, nfkd };

namespace detail {

/// Appends to `out` the canonical (or compatibility) decomposition of `line`, in canonical order.
inline void decompose(std::string_view line, bool compatibility, std::vector<utf8proc_int32_t>& out) {
  auto const options =
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatibility ? UTF8PROC_COMPAT : 0));
  for (std::size_t at = 0; at < line.size();) {
    utf8_step const step = decode_utf8(line, at);
    at += step.length;
    utf8proc_int32_t parts[32];  // the longest decomposition has 18
    utf8proc_ssize_t const count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(step.value), parts, 32, options, nullptr);
    if (count < 0 || count > 32) throw error("unicode_form: a code point cannot be decomposed");
    out.insert(out.end(), parts, parts + count);
  }
  auto const combining = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto begin = out.begin(); begin != out.end();) {
    if (combining(*begin) == 0) {
      ++begin;
      continue;
    }
    auto const end = std::find_if(begin, out.end(), [&](utf8proc_int32_t c) { return combining(c) == 0; });
    std::stable_sort(begin, end, [&](utf8proc_int32_t a, utf8proc_int32_t b) { return combining(a) < combining(b); });
    begin = end;
  }
}

}  // namespace detail

/// `text` (valid UTF-8) in the given form. Near linear; needs 4 bytes for each code point of the longest line. Throws `error` for
/// a code point that cannot be decomposed.
[[nodiscard]] inline std::string to_unicode_form(std::string_view text, unicode_form form) {
  bool const compose = form == unicode_form::nfc || form == unicode_form::nfkc;
  bool const compatibility = form == unicode_form::nfkc || form == unicode_form::nfkd;
  // Below U+0300 (lead byte CC) every character is its own NFC; below U+0080 its own form of any kind.
  unsigned const plain_below = form == unicode_form::nfc ? 0xCCU : 0x80U;
  std::string out;
  out.reserve(text.size());
  std::vector<utf8proc_int32_t> points;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t const feed = text.find('\n', at);
    std::size_t const end = feed == std::string_view::npos ? text.size() : feed + 1;
    std::string_view const line = text.substr(at, end - at);
    at = end;
    if (std::all_of(line.begin(), line.end(), [&](char b) { return static_cast<unsigned char>(b) < plain_below; })) {
      out += line;
      continue;
    }
    points.clear();
    detail::decompose(line, compatibility, points);
    auto length = static_cast<utf8proc_ssize_t>(points.size());
    if (compose)
      length = utf8proc_normalize_utf32(points.data(), length,
                                        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    for (utf8proc_ssize_t i = 0; i < length; ++i)
      append_utf8(out, static_cast<char32_t>(points[static_cast<std::size_t>(i)]));
  }
  return out;
}

}  // namespace v0
}  // namespace slimtrim
