// Tokens that are found in the text itself, before it is cut: special tokens and those that a user added.
//
// At each place the longest token wins; matches do not overlap (leftmost-longest). Flags as in Hugging Face's
// AddedToken: single_word asks for no word character on either side, lstrip and rstrip swallow white space.
#pragma once

#include <slimtrim/io/tokenizer/regex.hpp>
#include <slimtrim/io/tokenizer/unicode.hpp>
#include <slimtrim/io/tokenizer/vocabulary.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct added_token {
  token_id id = 0;
  std::string content{};
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalized = false;  ///< is looked for in the normalised text, itself normalised
  bool special = false;     ///< can be left out when decoding
};

/// Finds a fixed set of strings. Memory O(their total length); a search takes O(text * longest string) at worst, and
/// near O(text) where few places begin like one of them.
class token_finder {
 public:
  struct needle {
    std::string text;
    added_token flags;
  };

  token_finder() = default;
  /// Of equal texts the first counts; empty ones are ignored.
  explicit token_finder(std::vector<needle> needles) : needles_(std::move(needles)) {
    for (std::size_t i = 0; i < needles_.size(); ++i)
      if (!needles_[i].text.empty()) order_.push_back(static_cast<std::uint32_t>(i));
    std::stable_sort(order_.begin(), order_.end(),
                     [&](std::uint32_t a, std::uint32_t b) { return needles_[a].text < needles_[b].text; });
    order_.erase(std::unique(order_.begin(), order_.end(),
                             [&](std::uint32_t a, std::uint32_t b) { return needles_[a].text == needles_[b].text; }),
                 order_.end());
    for (std::uint32_t const i : order_) {
      first_byte_[static_cast<unsigned char>(needles_[i].text[0])] = true;
      if (needles_[i].flags.single_word && !word_character_) word_character_ = regex::word_character();
    }
  }

  [[nodiscard]] bool empty() const { return order_.empty(); }

  /// Calls `token(id)` for every token found and `rest(range)` for every non-empty range between them, in order.
  template <class Token, class Rest>
  void for_each_section(std::string_view text, regex_workspace& work, Token&& token, Rest&& rest) const {
    std::size_t covered = 0;
    std::size_t at = 0;
    while (at < text.size()) {
      if (!first_byte_[static_cast<unsigned char>(text[at])]) {
        ++at;
        continue;
      }
      needle const* const found = longest_at(text, at);
      if (found == nullptr) {
        ++at;
        continue;
      }
      std::size_t begin = at;
      std::size_t end = at + found->text.size();
      at = end;
      if (found->flags.single_word && !stands_alone(text, begin, end, work)) continue;
      if (found->flags.lstrip) begin = std::max(white_space_before(text, begin), covered);
      if (found->flags.rstrip) end = white_space_after(text, end);
      if (covered < begin) rest(byte_range{covered, begin});
      token(found->flags.id);
      covered = end;
    }
    if (covered < text.size()) rest(byte_range{covered, text.size()});
  }

 private:
  // Narrows the sorted list byte by byte; what equals the prefix so far is the first of the range.
  [[nodiscard]] needle const* longest_at(std::string_view text, std::size_t at) const {
    auto low = order_.begin();
    auto high = order_.end();
    needle const* best = nullptr;
    for (std::size_t n = 0; low != high; ++n) {
      if (needles_[*low].text.size() == n) {
        best = &needles_[*low];
        if (++low == high) break;
      }
      if (at + n >= text.size()) break;
      auto const wanted = static_cast<unsigned char>(text[at + n]);
      auto const byte = [&](std::uint32_t i) { return static_cast<unsigned char>(needles_[i].text[n]); };
      low = std::partition_point(low, high, [&](std::uint32_t i) { return byte(i) < wanted; });
      high = std::partition_point(low, high, [&](std::uint32_t i) { return byte(i) == wanted; });
    }
    return best;
  }

  static std::size_t previous(std::string_view text, std::size_t at) {
    --at;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) --at;
    return at;
  }
  [[nodiscard]] bool is_word_character(std::string_view text, std::size_t at, regex_workspace& work) const {
    return word_character_->find(text.substr(at, utf8_length(text[at])), 0, work).has_value();
  }
  [[nodiscard]] bool stands_alone(std::string_view text, std::size_t begin, std::size_t end,
                                  regex_workspace& work) const {
    if (begin > 0 && is_word_character(text, previous(text, begin), work)) return false;
    return end >= text.size() || !is_word_character(text, end, work);
  }
  static std::size_t white_space_before(std::string_view text, std::size_t at) {
    while (at > 0) {
      std::size_t const before = previous(text, at);
      if (!is_white_space(decode_utf8(text, before).value)) break;
      at = before;
    }
    return at;
  }
  static std::size_t white_space_after(std::string_view text, std::size_t at) {
    while (at < text.size()) {
      utf8_step const step = decode_utf8(text, at);
      if (!is_white_space(step.value)) break;
      at += step.length;
    }
    return at;
  }

  std::vector<needle> needles_;
  std::vector<std::uint32_t> order_;  // by text, without duplicates
  std::array<bool, 256> first_byte_{};
  std::optional<regex> word_character_;  // only where a token asks for it
};

}  // namespace v0
}  // namespace slimtrim
