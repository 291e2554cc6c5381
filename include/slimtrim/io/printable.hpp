// Text that comes from a file, made safe to put into a one-line message.
//
// Names in checkpoints are chosen by strangers: a raw newline or escape sequence in an error message could forge
// log lines or drive the reader's terminal.
#pragma once

#include <slimtrim/core/config.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace slimtrim {
inline namespace v0 {

/// The length in bytes of the well-formed UTF-8 sequence at the front of `text`, or 0 when there is none
/// (Unicode 15, table 3-7: no surrogates, no overlong forms, nothing above U+10FFFF).
[[nodiscard]] inline std::size_t utf8_sequence_length(std::string_view text) {
  auto const byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  auto const continues = [&](std::size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  unsigned const lead = byte(0);
  if (text.empty()) return 0;
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return continues(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    unsigned const low = lead == 0xE0 ? 0xA0 : 0x80;
    unsigned const high = lead == 0xED ? 0x9F : 0xBF;
    return byte(1) >= low && byte(1) <= high && continues(2) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    unsigned const low = lead == 0xF0 ? 0x90 : 0x80;
    unsigned const high = lead == 0xF4 ? 0x8F : 0xBF;
    return byte(1) >= low && byte(1) <= high && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

/// Whether all of `text` is well-formed UTF-8.
[[nodiscard]] inline bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    std::size_t const length = utf8_sequence_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

/// `text` with control characters (C0, DEL, C1) and ill-formed bytes written as `\xNN`, and cut to `most` bytes.
/// Other characters are kept, so that ordinary names read as they are.
[[nodiscard]] inline std::string printable(std::string_view text, std::size_t most = 200) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  while (!text.empty()) {
    if (out.size() >= most) return out + "...";
    std::size_t const length = utf8_sequence_length(text);
    auto const lead = static_cast<unsigned char>(text[0]);
    bool const control = lead < 0x20 || lead == 0x7F ||
                         (length == 2 && lead == 0xC2 && static_cast<unsigned char>(text[1]) < 0xA0);
    std::size_t const step = length == 0 ? 1 : length;
    if (length == 0 || control) {
      for (std::size_t i = 0; i < step; ++i) {
        auto const byte = static_cast<unsigned char>(text[i]);
        out += "\\x";
        out += digits[byte >> 4];
        out += digits[byte & 15];
      }
    } else {
      out += text.substr(0, step);
    }
    text.remove_prefix(step);
  }
  return out;
}

}  // namespace v0
}  // namespace slimtrim
