// Token text <-> id, both ways, in two flat arrays and one arena: a vocabulary of 256k tokens takes a few megabytes.
#pragma once

#include <slimtrim/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace slimtrim {
inline namespace v0 {

using token_id = std::uint32_t;

namespace detail {

/// 64-bit hash of bytes: multiply and fold, eight bytes a step. Not for adversarial keys.
[[nodiscard]] inline std::uint64_t hash_bytes(std::string_view bytes) {
  constexpr std::uint64_t multiplier = 0x9E3779B97F4A7C15ULL;
  std::uint64_t h = multiplier ^ bytes.size();
  char const* p = bytes.data();
  std::size_t left = bytes.size();
  auto const mix = [&](std::uint64_t word) {
    h = (h ^ word) * multiplier;
    h ^= h >> 32;
  };
  for (; left >= 8; left -= 8, p += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, p, 8);
    mix(word);
  }
  std::uint64_t tail = 0;
  if (left != 0) std::memcpy(&tail, p, left);
  mix(tail);
  return h ^ (h >> 29);
}

}  // namespace detail

class vocabulary {
 public:
  /// Ids from a file must be below this, so that a hostile id cannot make the table large.
  static constexpr token_id id_limit = token_id{1} << 22;

  enum class outcome { inserted, token_exists, id_exists, id_too_large };

  /// Adds a token. Nothing changes unless the outcome is `inserted`. O(token length) amortised.
  outcome insert(std::string_view token, std::uint64_t id) {
    if (id >= id_limit) return outcome::id_too_large;
    expects(text_.size() + token.size() < std::numeric_limits<std::uint32_t>::max(), "vocabulary", "more than 4 GiB");
    auto const index = static_cast<token_id>(id);
    if (contains(index)) return outcome::id_exists;
    if (4 * (count_ + 1) > 3 * slots_.size()) grow();
    std::size_t slot = 0;
    if (locate(token, slot)) return outcome::token_exists;
    if (index >= entries_.size()) entries_.resize(index + std::size_t{1}, entry{0, absent});
    entries_[index] = {static_cast<std::uint32_t>(text_.size()), static_cast<std::uint32_t>(token.size())};
    text_.append(token);
    slots_[slot] = index + 1;
    ++count_;
    return outcome::inserted;
  }

  [[nodiscard]] std::optional<token_id> find(std::string_view token) const {
    std::size_t slot = 0;
    if (slots_.empty() || !locate(token, slot)) return std::nullopt;
    return slots_[slot] - 1;
  }

  [[nodiscard]] bool contains(token_id id) const { return id < entries_.size() && entries_[id].length != absent; }

  /// The token's text; valid until the next `insert`. Throws `error` when there is no such id.
  [[nodiscard]] std::string_view token(token_id id) const {
    expects(contains(id), "vocabulary", "no such token id");
    return std::string_view(text_).substr(entries_[id].offset, entries_[id].length);
  }

  /// How many tokens there are.
  [[nodiscard]] std::size_t size() const { return count_; }
  /// One more than the largest id; 0 when empty.
  [[nodiscard]] token_id id_bound() const { return static_cast<token_id>(entries_.size()); }

 private:
  static constexpr std::uint32_t absent = std::numeric_limits<std::uint32_t>::max();
  struct entry {
    std::uint32_t offset;
    std::uint32_t length;
  };

  // Whether the token is present; `slot` is where it is or belongs. Needs at least one free slot.
  bool locate(std::string_view token, std::size_t& slot) const {
    std::size_t const mask = slots_.size() - 1;
    slot = static_cast<std::size_t>(detail::hash_bytes(token)) & mask;
    for (; slots_[slot] != 0; slot = (slot + 1) & mask) {
      entry const& e = entries_[slots_[slot] - 1];
      if (std::string_view(text_).substr(e.offset, e.length) == token) return true;
    }
    return false;
  }

  void grow() {
    slots_.assign(slots_.empty() ? 64 : 2 * slots_.size(), 0);
    for (std::size_t id = 0; id < entries_.size(); ++id) {
      if (entries_[id].length == absent) continue;
      std::size_t slot = 0;
      locate(std::string_view(text_).substr(entries_[id].offset, entries_[id].length), slot);
      slots_[slot] = static_cast<token_id>(id) + 1;
    }
  }

  std::string text_;
  std::vector<entry> entries_;        // by id
  std::vector<std::uint32_t> slots_;  // open addressing, id + 1, 0 = free; a power of two, at most 3/4 full
  std::size_t count_ = 0;
};

}  // namespace v0
}  // namespace slimtrim
