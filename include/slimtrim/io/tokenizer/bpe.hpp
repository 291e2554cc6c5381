// Byte-pair encoding: one word in, its token ids out.
//
// Sennrich et al. 2016 (arXiv 1508.07909), algorithm 1, applied as Hugging Face's `BPE` model does: the pair of lowest
// rank is merged first, of equal pairs the leftmost. Characters outside the vocabulary become byte tokens "<0xNN>"
// (byte_fallback), or the unknown token, or vanish when there is none.
#pragma once

#include <slimtrim/io/tokenizer/byte_level.hpp>
#include <slimtrim/io/tokenizer/merge_table.hpp>
#include <slimtrim/io/tokenizer/vocabulary.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {

struct bpe_options {
  std::optional<token_id> unknown{};  ///< stands for a character outside the vocabulary
  bool fuse_unknown = false;          ///< neighbouring unknown characters become one token
  bool byte_fallback = false;         ///< spell an unknown character in "<0xNN>" tokens, if all of them exist
  bool ignore_merges = false;         ///< a word that is a token is that token, whatever the merges say
  /// No rule merges across the start of a run of U+2581, so that text may be cut there without changing any id.
  bool cuts_at_space_mark = false;
};

/// Buffers of `bpe_model::encode_word`, to be kept between calls.
struct bpe_workspace {
  struct symbol {
    token_id id;
    std::uint32_t previous;
    std::uint32_t next;
  };
  struct candidate {
    std::uint32_t rank;
    std::uint32_t position;
    token_id merged;
  };
  std::vector<token_id> ids;
  std::vector<merge_rule> rules;
  std::vector<symbol> symbols;
  std::vector<candidate> heap;
  std::string spelled;
};

class bpe_model {
 public:
  bpe_model(vocabulary tokens, merge_table merges, bpe_options options)
      : tokens_(std::move(tokens)), merges_(std::move(merges)), options_(options) {
    std::string spelled;
    for (unsigned b = 0; b < 256; ++b) {
      auto const byte = static_cast<char>(static_cast<unsigned char>(b));
      spelled.clear();
      append_byte_level(spelled, std::string_view(&byte, 1));
      byte_symbol_[b] = tokens_.find(spelled).value_or(none);
      if (b < 128) ascii_symbol_[b] = tokens_.find(std::string_view(&byte, 1)).value_or(none);
      constexpr char const* digit = "0123456789ABCDEF";
      char const code[] = {'<', '0', 'x', digit[b >> 4], digit[b & 15U], '>'};
      fallback_[b] = tokens_.find(std::string_view(code, 6)).value_or(none);
    }
  }

  [[nodiscard]] vocabulary const& tokens() const { return tokens_; }
  [[nodiscard]] bpe_options const& options() const { return options_; }

  /// Appends the ids of one word of text (valid UTF-8).
  /// O(n log n) in its length, and O(n^2) operations of a few instructions for words of at most 32 characters.
  void encode_word(std::string_view word, bpe_workspace& work, std::vector<token_id>& out) const {
    if (word.empty()) return;
    if (options_.ignore_merges) {
      if (auto const id = tokens_.find(word)) {
        out.push_back(*id);
        return;
      }
    }
    work.ids.clear();
    split_characters(word, work.ids);
    merge_all(work, out);
  }

  /// The same for a word given as raw bytes, each of which stands for its character of the byte alphabet.
  void encode_bytes(std::string_view bytes, bpe_workspace& work, std::vector<token_id>& out) const {
    if (bytes.empty()) return;
    bool const plain = std::all_of(bytes.begin(), bytes.end(),
                                   [this](char b) { return byte_symbol_[static_cast<unsigned char>(b)] != none; });
    if (options_.ignore_merges || !plain) {
      work.spelled.clear();
      append_byte_level(work.spelled, bytes);
      encode_word(work.spelled, work, out);
      return;
    }
    work.ids.resize(bytes.size());
    for (std::size_t i = 0; i < bytes.size(); ++i) work.ids[i] = byte_symbol_[static_cast<unsigned char>(bytes[i])];
    merge_all(work, out);
  }

 private:
  static constexpr token_id none = std::numeric_limits<token_id>::max();
  static constexpr std::uint32_t end = std::numeric_limits<std::uint32_t>::max();

  void split_characters(std::string_view word, std::vector<token_id>& ids) const {
    // An unknown character waits until the next known one, so that it can be fused with others. Byte tokens do not
    // release it: that is how the reference implementation orders them, and only incomplete byte sets show it.
    bool waiting = false;
    for (std::size_t at = 0; at < word.size();) {
      std::size_t const length = utf8_length(word[at]);
      std::string_view const character = word.substr(at, length);
      at += length;
      token_id const known = length == 1 ? ascii_symbol_[static_cast<unsigned char>(character[0])]
                                         : tokens_.find(character).value_or(none);
      if (known != none) {
        if (waiting) ids.push_back(*options_.unknown);
        waiting = false;
        ids.push_back(known);
        continue;
      }
      if (options_.byte_fallback && std::all_of(character.begin(), character.end(), [this](char b) {
            return fallback_[static_cast<unsigned char>(b)] != none;
          })) {
        for (char const b : character) ids.push_back(fallback_[static_cast<unsigned char>(b)]);
        continue;
      }
      if (!options_.unknown) continue;
      if (waiting && !options_.fuse_unknown) ids.push_back(*options_.unknown);
      waiting = true;
    }
    if (waiting) ids.push_back(*options_.unknown);
  }

  void merge_all(bpe_workspace& work, std::vector<token_id>& out) const {
    if (work.ids.size() <= 32)
      merge_short(work, out);
    else
      merge_long(work, out);
  }

  // Finds the best pair by scanning; for the few symbols of an ordinary word that beats any queue.
  void merge_short(bpe_workspace& work, std::vector<token_id>& out) const {
    std::vector<token_id>& ids = work.ids;
    std::vector<merge_rule>& rules = work.rules;
    std::size_t n = ids.size();
    rules.resize(n);
    for (std::size_t i = 0; i + 1 < n; ++i) rules[i] = merges_.find(ids[i], ids[i + 1]);
    while (n > 1) {
      std::size_t best = 0;
      for (std::size_t i = 1; i + 1 < n; ++i)
        if (rules[i].rank < rules[best].rank) best = i;
      if (rules[best].rank == merge_table::no_rank) break;
      ids[best] = rules[best].merged;
      for (std::size_t i = best + 1; i + 1 < n; ++i) {
        ids[i] = ids[i + 1];
        rules[i] = rules[i + 1];
      }
      --n;
      if (best > 0) rules[best - 1] = merges_.find(ids[best - 1], ids[best]);
      if (best + 1 < n) rules[best] = merges_.find(ids[best], ids[best + 1]);
    }
    out.insert(out.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n));
  }

  // A linked list of symbols and a heap of candidate pairs; a candidate whose pair has changed since is skipped.
  void merge_long(bpe_workspace& work, std::vector<token_id>& out) const {
    expects(work.ids.size() < end, "bpe_model", "a word of 4 GiB or more");
    auto const n = static_cast<std::uint32_t>(work.ids.size());
    auto& symbols = work.symbols;
    auto& heap = work.heap;
    symbols.resize(n);
    heap.clear();
    auto const later = [](bpe_workspace::candidate const& a, bpe_workspace::candidate const& b) {
      return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
    };
    for (std::uint32_t i = 0; i < n; ++i) {
      symbols[i] = {work.ids[i], i == 0 ? end : i - 1, i + 1 == n ? end : i + 1};
      if (i + 1 == n) break;
      merge_rule const rule = merges_.find(work.ids[i], work.ids[i + 1]);
      if (rule.rank != merge_table::no_rank) heap.push_back({rule.rank, i, rule.merged});
    }
    std::make_heap(heap.begin(), heap.end(), later);
    auto const consider = [&](std::uint32_t left) {
      merge_rule const rule = merges_.find(symbols[left].id, symbols[symbols[left].next].id);
      if (rule.rank == merge_table::no_rank) return;
      heap.push_back({rule.rank, left, rule.merged});
      std::push_heap(heap.begin(), heap.end(), later);
    };
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end(), later);
      bpe_workspace::candidate const top = heap.back();
      heap.pop_back();
      bpe_workspace::symbol& left = symbols[top.position];
      if (left.id == none || left.next == end) continue;
      bpe_workspace::symbol& right = symbols[left.next];
      if (merges_.find(left.id, right.id).rank != top.rank) continue;
      left.id = top.merged;
      right.id = none;
      left.next = right.next;
      if (left.next != end) symbols[left.next].previous = top.position;
      if (left.previous != end) consider(left.previous);
      if (left.next != end) consider(top.position);
    }
    for (std::uint32_t i = 0; i != end; i = symbols[i].next) out.push_back(symbols[i].id);
  }

  vocabulary tokens_;
  merge_table merges_;
  bpe_options options_;
  std::array<token_id, 256> byte_symbol_{};
  std::array<token_id, 128> ascii_symbol_{};
  std::array<token_id, 256> fallback_{};
};

}  // namespace v0
}  // namespace slimtrim
