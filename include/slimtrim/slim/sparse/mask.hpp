// Which weights are kept: one bit an element, unstructured or N of every M.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/mask_view.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// How much to prune: a share `rate` of the elements anywhere, or, when `of` > 0, all but `keep` of every `of` inputs
/// (2:4 is keep = 2, of = 4). A last group shorter than `of` keeps min(keep, its size).
struct sparsity {
  double rate = 0.5;
  index_t keep = 0;
  index_t of = 0;

  [[nodiscard]] constexpr bool structured() const { return of > 0; }
  /// How many of n elements an unstructured rate prunes: floor(rate n), as Wanda's code.
  [[nodiscard]] index_t pruned_of(index_t n) const {
    return static_cast<index_t>(std::floor(rate * static_cast<double>(n) + 1e-9));
  }
  void check() const {
    if (structured()) {
      expects(keep >= 0 && keep <= of && of <= 64, "sparsity", "N:M needs 0 <= N <= M <= 64");
    } else {
      expects(rate >= 0 && rate <= 1, "sparsity", "rate must be in [0, 1]");
    }
  }
};

/// An owning mask of [rows, columns]; set bits are kept. Bits beyond the last column are clear.
class mask {
 public:
  mask() = default;
  /// Everything kept (`kept` true) or everything pruned.
  mask(index_t rows, index_t columns, bool kept = true) : rows_(rows), columns_(columns), words_(rows, ceil_div(columns, 64)) {
    words_.fill(kept ? ~std::uint64_t{0} : 0);
    if (kept && columns % 64 != 0)
      for (index_t r = 0; r < rows; ++r) words_(r, columns / 64) = (std::uint64_t{1} << (columns % 64)) - 1;
  }

  [[nodiscard]] index_t rows() const { return rows_; }
  [[nodiscard]] index_t columns() const { return columns_; }
  [[nodiscard]] bool operator()(index_t r, index_t c) const { return (words_(r, c >> 6) >> (c & 63) & 1U) != 0; }
  void set(index_t r, index_t c, bool kept) {
    std::uint64_t const bit = std::uint64_t{1} << (c & 63);
    std::uint64_t& word = words_(r, c >> 6);
    word = kept ? word | bit : word & ~bit;
  }
  /// Word w of row r: columns 64 w .. 64 w + 63.
  [[nodiscard]] std::uint64_t& word(index_t r, index_t w) { return words_(r, w); }
  [[nodiscard]] std::uint64_t word(index_t r, index_t w) const { return words_(r, w); }
  [[nodiscard]] index_t words_per_row() const { return words_.extent(1); }
  [[nodiscard]] mask_view<> view() const { return {rows_, columns_, words_.view().data, words_.extent(1)}; }

 private:
  index_t rows_ = 0;
  index_t columns_ = 0;
  matrix<std::uint64_t> words_;
};

/// Elements kept.
[[nodiscard]] inline index_t popcount(mask_view<> const& m) {
  index_t sum = 0;
  for (index_t i = 0; i < m.rows * m.words_per_row; ++i) sum += std::popcount(m.words[i]);
  return sum;
}

/// Whether every group of `of` inputs keeps at most `keep`. (At most: a weight that is zero anyway need not be marked.)
[[nodiscard]] inline bool follows(mask_view<> const& m, sparsity const& pattern) {
  pattern.check();
  if (!pattern.structured()) return m.rows * m.columns - popcount(m) >= pattern.pruned_of(m.rows * m.columns);
  for (index_t r = 0; r < m.rows; ++r)
    for (index_t first = 0; first < m.columns; first += pattern.of) {
      index_t kept = 0;
      for (index_t c = first; c < std::min(m.columns, first + pattern.of); ++c) kept += m(r, c) ? 1 : 0;
      if (kept > pattern.keep) return false;
    }
  return true;
}

/// W[r, c] = 0 where the mask is clear. Shapes must agree.
template <class T>
void apply(mask_view<> const& m, matrix_view<T> W) {
  expects_equal(W.extent(0), m.rows, "apply", "rows");
  expects_equal(W.extent(1), m.columns, "apply", "columns");
  for (index_t r = 0; r < m.rows; ++r)
    for (index_t c = 0; c < m.columns; ++c)
      if (!m(r, c)) W(r, c) = static_cast<T>(0.0F);
}

namespace detail {

// Keeps the highest `scores` (finite, >= 0): prunes `pruned` of n, equal scores pruned from the higher index down.
// Calls drop(i) for each. Non-negative floats compare as their bits do, so one key orders score, then index.
template <class Drop>
void drop_lowest(float const* scores, index_t n, index_t pruned, std::vector<std::uint64_t>& keys, Drop&& drop) {
  if (pruned <= 0) return;
  keys.resize(static_cast<std::size_t>(n));
  for (index_t i = 0; i < n; ++i)
    keys[static_cast<std::size_t>(i)] =
        (static_cast<std::uint64_t>(bits_as<std::uint32_t>(scores[i]) & 0x7fffffffU) << 32) | static_cast<std::uint32_t>(n - 1 - i);
  if (pruned < n) std::nth_element(keys.begin(), keys.begin() + pruned, keys.end());
  for (index_t k = 0; k < pruned; ++k)
    drop(n - 1 - static_cast<index_t>(static_cast<std::uint32_t>(keys[static_cast<std::size_t>(k)])));
}

// Bits of the `keep` highest of n <= 64 scores, ties to the lower index, by counting how many rank before each.
inline std::uint64_t highest_bits(float const* scores, index_t n, index_t keep) {
  std::uint64_t bits = 0;
  for (index_t i = 0; i < n; ++i) {
    index_t before = 0;
    for (index_t j = 0; j < n; ++j) before += (scores[j] > scores[i] || (scores[j] == scores[i] && j < i)) ? 1 : 0;
    bits |= static_cast<std::uint64_t>(before < keep) << i;
  }
  return bits;
}

// Eight bytes of four bits each, the first lowest, as 32 bits side by side.
inline std::uint64_t squeeze_nibbles(std::uint8_t const* codes) {
  std::uint64_t x = 0;
  std::memcpy(&x, codes, 8);
  x = (x | (x >> 4)) & 0x00ff00ff00ff00ffU;
  x = (x | (x >> 8)) & 0x0000ffff0000ffffU;
  return (x | (x >> 16)) & 0xffffffffU;
}

// The same for 64 scores in groups of four, without branches: each of four is ranked against the three others, and a
// group's four bits are one code.
inline std::uint64_t highest_of_fours(float const* scores, int keep) {
  std::uint8_t code[16];
  for (index_t g = 0; g < 16; ++g) {
    float const a = scores[4 * g], b = scores[4 * g + 1], c = scores[4 * g + 2], d = scores[4 * g + 3];
    int const ab = b > a, ac = c > a, ad = d > a, bc = c > b, bd = d > b, cd = d > c;
    int const first = ab + ac + ad < keep, second = 1 - ab + bc + bd < keep;
    int const third = 2 - ac - bc + cd < keep, fourth = 3 - ad - bd - cd < keep;
    code[g] = static_cast<std::uint8_t>(first | second << 1 | third << 2 | fourth << 3);
  }
  return squeeze_nibbles(code) | squeeze_nibbles(code + 8) << 32;
}

// The same for 64 scores in groups of eight, the ranks of a group counted side by side.
inline std::uint64_t highest_of_eights(float const* scores, int keep) {
  std::uint64_t bits = 0;
  for (index_t g = 0; g < 64; g += 8) {
    int before[8] = {};
    for (int j = 0; j < 8; ++j)
      for (int i = 0; i < 8; ++i)
        before[i] += static_cast<int>(scores[g + j] > scores[g + i]) |
                     (static_cast<int>(scores[g + j] == scores[g + i]) & static_cast<int>(j < i));
    for (int i = 0; i < 8; ++i) bits |= static_cast<std::uint64_t>(before[i] < keep) << (g + i);
  }
  return bits;
}

// One row of a mask from its scores: N:M, or an unstructured share of the row.
inline void mask_row(float const* scores, index_t r, sparsity const& pattern, mask& out, std::vector<std::uint64_t>& keys) {
  index_t const n = out.columns();
  if (!pattern.structured()) {
    drop_lowest(scores, n, pattern.pruned_of(n), keys, [&](index_t c) { out.set(r, c, false); });
    return;
  }
  index_t c = 0;
  int const keep = static_cast<int>(pattern.keep);
  if (pattern.of == 4)
    for (; c + 64 <= n; c += 64) out.word(r, c / 64) = highest_of_fours(scores + c, keep);
  if (pattern.of == 8)
    for (; c + 64 <= n; c += 64) out.word(r, c / 64) = highest_of_eights(scores + c, keep);
  for (; c < n; c += pattern.of) {
    index_t const m = std::min(pattern.of, n - c);
    std::uint64_t const bits = highest_bits(scores + c, m, pattern.keep);
    for (index_t i = 0; i < m; ++i) out.set(r, c + i, (bits >> i & 1U) != 0);
  }
}

}  // namespace detail

}  // namespace v0
}  // namespace slimtrim
