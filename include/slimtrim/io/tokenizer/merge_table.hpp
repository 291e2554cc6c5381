// The merge rules of a BPE model: pair of ids -> rank and merged id, in one open-addressing table.
#pragma once

#include <slimtrim/io/tokenizer/vocabulary.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct merge_rule {
  std::uint32_t rank;  ///< lower merges first; `merge_table::no_rank` when the pair does not merge
  token_id merged;
};

class merge_table {
 public:
  static constexpr std::uint32_t no_rank = std::numeric_limits<std::uint32_t>::max();

  /// Adds a rule; a pair that is already present gets the new rank and result. O(1) amortised.
  void insert(token_id left, token_id right, merge_rule rule) {
    if (3 * (count_ + 1) > 2 * slots_.size()) grow();
    slot& place = slots_[locate(key_of(left, right))];
    if (place.rule.rank == no_rank) ++count_;
    place = {key_of(left, right), rule};
  }

  [[nodiscard]] merge_rule find(token_id left, token_id right) const {
    if (slots_.empty()) return {no_rank, 0};
    return slots_[locate(key_of(left, right))].rule;
  }

  [[nodiscard]] std::size_t size() const { return count_; }

 private:
  struct slot {
    std::uint64_t key = 0;
    merge_rule rule{no_rank, 0};  // a free slot has no rank
  };

  static std::uint64_t key_of(token_id left, token_id right) { return (std::uint64_t{left} << 32) | right; }

  [[nodiscard]] std::size_t locate(std::uint64_t key) const {
    std::size_t const mask = slots_.size() - 1;
    std::uint64_t h = key * 0x9E3779B97F4A7C15ULL;
    h ^= h >> 32;
    std::size_t at = static_cast<std::size_t>(h) & mask;
    while (slots_[at].rule.rank != no_rank && slots_[at].key != key) at = (at + 1) & mask;
    return at;
  }

  void grow() {
    std::vector<slot> old(slots_.empty() ? 64 : 2 * slots_.size());
    old.swap(slots_);
    for (slot const& s : old)
      if (s.rule.rank != no_rank) slots_[locate(s.key)] = s;
  }

  std::vector<slot> slots_;  // a power of two, at most 2/3 full
  std::size_t count_ = 0;
};

}  // namespace v0
}  // namespace slimtrim
