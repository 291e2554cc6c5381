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
#include <utility>
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

  /// A deep copy; never implicit.
  [[nodiscard]] mask clone() const {
    mask copy;
    copy.rows_ = rows_;
    copy.columns_ = columns_;
    copy.words_ = words_.clone();
    return copy;
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

// Where a share of scores is cut off: what is below `bits`, and what equals it from index `from` on, goes. Scores are finite and
// >= 0, and so compare as their bits do.
struct score_cut {
  std::uint32_t bits = 0;
  index_t from = 0;

  [[nodiscard]] static std::uint32_t bits_of(float score) { return bits_as<std::uint32_t>(score) & 0x7fffffffU; }
  [[nodiscard]] bool drops(float score, index_t i) const {
    std::uint32_t const own = bits_of(score);
    return (own < bits) | ((own == bits) & (i >= from));
  }
};

// The cut that drops the `pruned` lowest of n scores, equal ones from the higher index down. A histogram of the leading eleven bits
// (exponent and three of the fraction) settles all but the scores of one bin, which are ordered by score, then index.
inline score_cut cut_of(float const* scores, index_t n, index_t pruned, std::vector<std::uint64_t>& keys) {
  if (pruned <= 0) return {0, n};
  constexpr int shift = 20;
  index_t counts[std::size_t{1} << (31 - shift)] = {};
  for (index_t i = 0; i < n; ++i) ++counts[score_cut::bits_of(scores[i]) >> shift];
  std::uint32_t edge = 0;
  index_t below = 0;
  while (below + counts[edge] < pruned) below += counts[edge++];
  keys.clear();
  for (index_t i = 0; i < n; ++i) {
    std::uint32_t const bits = score_cut::bits_of(scores[i]);
    if (bits >> shift == edge) keys.push_back(static_cast<std::uint64_t>(bits) << 32 | static_cast<std::uint32_t>(n - 1 - i));
  }
  auto const last = keys.begin() + (pruned - below - 1);
  std::nth_element(keys.begin(), last, keys.end());
  return {static_cast<std::uint32_t>(*last >> 32), n - 1 - static_cast<index_t>(static_cast<std::uint32_t>(*last))};
}

// Calls drop(i) for each of the `pruned` lowest of n scores.
template <class Drop>
void drop_lowest(float const* scores, index_t n, index_t pruned, std::vector<std::uint64_t>& keys, Drop&& drop) {
  score_cut const cut = cut_of(scores, n, pruned, keys);
  for (index_t i = 0; i < n; ++i)
    if (cut.drops(scores[i], i)) drop(i);
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

// Eight 32-bit lanes as one value, for the reason of column_sweep's float_lanes.
using integer_lanes [[gnu::vector_size(32), gnu::aligned(4), gnu::may_alias]] = std::int32_t;

// The lane `by` further in the lane's group, around the group's end.
constexpr int further(int lane, int group, int by) { return lane / group * group + (lane + by) % group; }

// Adds -1 to every lane whose neighbour `By` further ranks before it: higher, or equal and of the lower index. Scores are compared
// as their bits, where the least of steps makes "not lower" of "higher".
template <int Group, int By>
void count_before(integer_lanes const& v, integer_lanes& before) {
  constexpr auto from = [](int lane) { return further(lane, Group, By); };
  constexpr auto lower = [](int lane) { return further(lane, Group, By) < lane ? 1 : 0; };
  constexpr integer_lanes is_lower = {lower(0), lower(1), lower(2), lower(3), lower(4), lower(5), lower(6), lower(7)};
  integer_lanes const beside =
      __builtin_shufflevector(v, v, from(0), from(1), from(2), from(3), from(4), from(5), from(6), from(7));
  before += (beside + is_lower) > v;
}
template <int Group, int... By>
void count_all_before(integer_lanes const& v, integer_lanes& before, std::integer_sequence<int, By...>) {
  (count_before<Group, By + 1>(v, before), ...);
}

// Bit b of byte a becomes bit a of byte b.
inline std::uint64_t transposed_bits(std::uint64_t x) {
  std::uint64_t moved = (x ^ (x >> 7)) & 0x00aa00aa00aa00aaU;
  x ^= moved ^ (moved << 7);
  moved = (x ^ (x >> 14)) & 0x0000cccc0000ccccU;
  x ^= moved ^ (moved << 14);
  moved = (x ^ (x >> 28)) & 0x00000000f0f0f0f0U;
  return x ^ moved ^ (moved << 28);
}

// The same for 64 scores in groups of `Group`, without branches: the other scores of a group are brought beside each score.
template <int Group>
std::uint64_t highest_in_groups(float const* scores, int keep) {
  integer_lanes kept = {};  // lane l, bit k: score 8 k + l
  integer_lanes bit = {1, 1, 1, 1, 1, 1, 1, 1};
  for (int k = 0; k < 8; ++k, bit += bit) {
    integer_lanes const& v = *reinterpret_cast<integer_lanes const*>(scores + 8 * k);
    integer_lanes before = {};
    count_all_before<Group>(v, before, std::make_integer_sequence<int, Group - 1>());
    kept |= (before > -keep) & bit;
  }
  std::uint64_t bits = 0;
  for (int l = 0; l < 8; ++l) bits |= static_cast<std::uint64_t>(static_cast<std::uint32_t>(kept[l])) << (8 * l);
  return transposed_bits(bits);
}

// One row of a mask from its scores: N:M, or an unstructured share of the row.
inline void mask_row(float const* scores, index_t r, sparsity const& pattern, mask& out, std::vector<std::uint64_t>& keys) {
  index_t const n = out.columns();
  if (!pattern.structured()) {
    score_cut const cut = cut_of(scores, n, pattern.pruned_of(n), keys);
    for (index_t w = 0; w < out.words_per_row(); ++w) {
      std::uint64_t kept = 0;
      for (index_t c = 64 * w; c < std::min(n, 64 * w + 64); ++c)
        kept |= static_cast<std::uint64_t>(!cut.drops(scores[c], c)) << (c & 63);
      out.word(r, w) = kept;
    }
    return;
  }
  index_t c = 0;
  int const keep = static_cast<int>(pattern.keep);
  if (pattern.of == 4)
    for (; c + 64 <= n; c += 64) out.word(r, c / 64) = highest_in_groups<4>(scores + c, keep);
  if (pattern.of == 8)
    for (; c + 64 <= n; c += 64) out.word(r, c / 64) = highest_in_groups<8>(scores + c, keep);
  for (; c < n; c += pattern.of) {
    index_t const m = std::min(pattern.of, n - c);
    std::uint64_t const bits = highest_bits(scores + c, m, pattern.keep);
    for (index_t i = 0; i < m; ++i) out.set(r, c + i, (bits >> i & 1U) != 0);
  }
}

}  // namespace detail

}  // namespace v0
}  // namespace slimtrim
