// UTF-8 as the tokenizer needs it: strict decoding, and the replacement of what is not UTF-8.
//
// Ill-formed input is replaced by U+FFFD, one per maximal subpart of an ill-formed sequence (Unicode standard 15,
// section 3.9, table 3-11), which is also what the decoders of the reference library do.
#pragma once

#include <slimtrim/core/config.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace slimtrim {
inline namespace v0 {

/// One step through UTF-8 text. When `valid` is false, `length` is the length of the ill-formed subpart (>= 1) and
/// `value` is U+FFFD.
struct utf8_step {
  char32_t value;
  std::uint32_t length;
  bool valid;
};

inline constexpr char32_t replacement_character = 0xFFFD;

/// Decodes the code point at byte `at` < text.size(); overlong forms, surrogates and values above U+10FFFF are
/// ill-formed.
[[nodiscard]] inline utf8_step decode_utf8(std::string_view text, std::size_t at) {
  auto const byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  unsigned const lead = byte(at);
  if (lead < 0x80U) return {static_cast<char32_t>(lead), 1, true};
  unsigned low = 0x80U, high = 0xBFU;  // allowed range of the second byte
  std::uint32_t length = 0;
  char32_t value = 0;
  if (lead >= 0xC2U && lead <= 0xDFU) {
    length = 2;
    value = lead & 0x1FU;
  } else if (lead >= 0xE0U && lead <= 0xEFU) {
    length = 3;
    value = lead & 0x0FU;
    if (lead == 0xE0U) low = 0xA0U;
    if (lead == 0xEDU) high = 0x9FU;
  } else if (lead >= 0xF0U && lead <= 0xF4U) {
    length = 4;
    value = lead & 0x07U;
    if (lead == 0xF0U) low = 0x90U;
    if (lead == 0xF4U) high = 0x8FU;
  } else {
    return {replacement_character, 1, false};
  }
  for (std::uint32_t i = 1; i < length; ++i) {
    if (at + i >= text.size() || byte(at + i) < low || byte(at + i) > high) return {replacement_character, i, false};
    value = (value << 6) | (byte(at + i) & 0x3FU);
    low = 0x80U;
    high = 0xBFU;
  }
  return {value, length, true};
}

/// Bytes of the code point that starts with `lead`, in text that is known to be valid UTF-8.
[[nodiscard]] inline std::size_t utf8_length(char lead) {
  auto const byte = static_cast<unsigned char>(lead);
  return byte < 0x80U ? 1U : byte < 0xE0U ? 2U : byte < 0xF0U ? 3U : 4U;
}

/// Appends a Unicode scalar value.
inline void append_utf8(std::string& text, char32_t value) {
  auto const put = [&](unsigned bits) { text.push_back(static_cast<char>(bits)); };
  auto const c = static_cast<std::uint32_t>(value);
  if (c < 0x80U) {
    put(c);
  } else if (c < 0x800U) {
    put(0xC0U | (c >> 6));
    put(0x80U | (c & 0x3FU));
  } else if (c < 0x10000U) {
    put(0xE0U | (c >> 12));
    put(0x80U | ((c >> 6) & 0x3FU));
    put(0x80U | (c & 0x3FU));
  } else {
    put(0xF0U | (c >> 18));
    put(0x80U | ((c >> 12) & 0x3FU));
    put(0x80U | ((c >> 6) & 0x3FU));
    put(0x80U | (c & 0x3FU));
  }
}

/// Index of the first byte that is not ASCII, at or after `from`; text.size() if there is none.
[[nodiscard]] inline std::size_t skip_ascii(std::string_view text, std::size_t from) {
  while (from + 8 <= text.size()) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + from, 8);
    if ((word & 0x8080808080808080ULL) != 0) break;
    from += 8;
  }
  while (from < text.size() && static_cast<unsigned char>(text[from]) < 0x80U) ++from;
  return from;
}

[[nodiscard]] inline bool is_valid_utf8(std::string_view text) {
  for (std::size_t at = skip_ascii(text, 0); at < text.size(); at = skip_ascii(text, at)) {
    utf8_step const step = decode_utf8(text, at);
    if (!step.valid) return false;
    at += step.length;
  }
  return true;
}

/// The text with every maximal ill-formed subpart replaced by U+FFFD; valid text is returned unchanged.
[[nodiscard]] inline std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    utf8_step const step = decode_utf8(text, at);
    if (step.valid)
      out.append(text, at, step.length);
    else
      append_utf8(out, replacement_character);
    at += step.length;
  }
  return out;
}

/// The Unicode property White_Space (Unicode 14, PropList.txt).
[[nodiscard]] inline bool is_white_space(char32_t c) {
  return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

namespace detail {

/// A piece of a file for use in a one-line message: at most 40 bytes, control characters shown as '?'.
[[nodiscard]] inline std::string shown_text(std::string_view text) {
  std::string out = "\"";
  std::size_t at = 0;
  while (at < text.size() && at < 40) {
    utf8_step const step = decode_utf8(text, at);
    if (!step.valid || step.value < 0x20 || (step.value >= 0x7F && step.value < 0xA0) || step.value == 0x2028 ||
        step.value == 0x2029)
      out.push_back('?');
    else
      out.append(text, at, step.length);
    at += step.length;
  }
  if (at < text.size()) out += "...";
  out.push_back('"');
  return out;
}

}  // namespace detail
}  // namespace v0
}  // namespace slimtrim
