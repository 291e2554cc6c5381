// Words that were encoded before, with their ids: natural text repeats few words very often.
//
// The cache only saves time; what is encoded never depends on it.
#pragma once

#include <slimtrim/io/tokenizer/vocabulary.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

class word_cache {
 public:
  static constexpr std::size_t longest_word = 64;     ///< bytes
  static constexpr std::size_t most_words = 1 << 17;  ///< about 8 MiB

  /// Appends the ids of `word` to `out`; when it is not cached, `encode(out)` must append them.
  template <class F>
  void encode(std::string_view word, std::vector<token_id>& out, F&& encode_uncached) {
    if (word.size() > longest_word) return encode_uncached(out);
    if (2 * (count_ + 1) > slots_.size() && slots_.size() < 2 * most_words) grow();
    std::uint64_t const hash = detail::hash_bytes(word);
    std::size_t const mask = slots_.size() - 1;
    std::size_t at = static_cast<std::size_t>(hash) & mask;
    for (; slots_[at].length != 0; at = (at + 1) & mask) {
      slot const& s = slots_[at];
      if (s.hash != hash || std::string_view(text_).substr(s.text, s.length) != word) continue;
      out.insert(out.end(), ids_.begin() + s.ids, ids_.begin() + s.ids + s.count);
      return;
    }
    std::size_t const before = out.size();
    encode_uncached(out);
    if (word.empty() || count_ >= most_words) return;
    slots_[at] = {hash, static_cast<std::uint32_t>(text_.size()), static_cast<std::uint32_t>(ids_.size()),
                  static_cast<std::uint16_t>(word.size()), static_cast<std::uint16_t>(out.size() - before)};
    text_ += word;
    ids_.insert(ids_.end(), out.begin() + static_cast<std::ptrdiff_t>(before), out.end());
    ++count_;
  }

  [[nodiscard]] std::size_t size() const { return count_; }

  void clear() {
    slots_.clear();
    text_.clear();
    ids_.clear();
    count_ = 0;
  }

 private:
  struct slot {
    std::uint64_t hash = 0;
    std::uint32_t text = 0;
    std::uint32_t ids = 0;
    std::uint16_t length = 0;  // 0 = free
    std::uint16_t count = 0;
  };

  void grow() {
    std::vector<slot> old(slots_.empty() ? 1024 : 2 * slots_.size());
    old.swap(slots_);
    std::size_t const mask = slots_.size() - 1;
    for (slot const& s : old) {
      if (s.length == 0) continue;
      std::size_t at = static_cast<std::size_t>(s.hash) & mask;
      while (slots_[at].length != 0) at = (at + 1) & mask;
      slots_[at] = s;
    }
  }

  std::vector<slot> slots_;  // open addressing; a power of two, at most half full
  std::string text_;
  std::vector<token_id> ids_;
  std::size_t count_ = 0;
};

}  // namespace v0
}  // namespace slimtrim
