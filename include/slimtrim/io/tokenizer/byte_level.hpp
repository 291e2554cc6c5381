// The byte alphabet of byte-level BPE: every byte has a printable character, so that any text is a string of them.
//
// Radford et al. 2019, "Language models are unsupervised multitask learners", section 2.2; the table is the one of the
// released GPT-2 encoder: printable Latin-1 bytes stand for themselves, the other 68 for U+0100, U+0101, ... in order.
#pragma once

#include <slimtrim/io/tokenizer/unicode.hpp>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace slimtrim {
inline namespace v0 {

namespace detail {

struct byte_alphabet {
  std::array<char16_t, 256> character{};
  std::array<std::int16_t, 0x144> byte{};  // -1 where the character stands for no byte

  constexpr byte_alphabet() {
    for (auto& b : byte) b = -1;
    char16_t next = 0x100;
    for (unsigned b = 0; b < 256; ++b) {
      bool const printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
      char16_t const c = printable ? static_cast<char16_t>(b) : next++;
      character[b] = c;
      byte[c] = static_cast<std::int16_t>(b);
    }
  }
};

inline constexpr byte_alphabet byte_characters{};

}  // namespace detail

/// The character (U+0021 .. U+0143) that stands for `byte`.
[[nodiscard]] constexpr char32_t byte_level_character(unsigned char byte) {
  return detail::byte_characters.character[byte];
}

/// The byte that `character` stands for, or -1.
[[nodiscard]] constexpr int byte_level_byte(char32_t character) {
  return character < detail::byte_characters.byte.size() ? detail::byte_characters.byte[character] : -1;
}

/// Appends `bytes`, each as its character.
inline void append_byte_level(std::string& out, std::string_view bytes) {
  for (char const b : bytes) append_utf8(out, byte_level_character(static_cast<unsigned char>(b)));
}

/// Appends the bytes that `token` (valid UTF-8) spells in the alphabet; a token with any other character is appended
/// as it is.
inline void append_byte_level_decoded(std::string& out, std::string_view token) {
  std::size_t const before = out.size();
  for (std::size_t at = 0; at < token.size();) {
    utf8_step const step = decode_utf8(token, at);
    int const byte = step.valid ? byte_level_byte(step.value) : -1;
    if (byte < 0) {
      out.resize(before);
      out.append(token);
      return;
    }
    out.push_back(static_cast<char>(byte));
    at += step.length;
  }
}

}  // namespace v0
}  // namespace slimtrim
