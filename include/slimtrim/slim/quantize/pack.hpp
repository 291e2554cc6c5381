// One packer for every format: dense bit streams, and the word layouts of GPTQ and AWQ made from them.
//
// | format                       | codes                                 | zero points                            |
// |------------------------------|---------------------------------------|----------------------------------------|
// | compressed-tensors           | quantized_view::words as they are     | pack_zeros: stream along dimension 0   |
// | GPTQ v2 (checkpoint "v2")    | gptq_codes: the words transposed      | gptq_zeros(stored_minus_one = false)   |
// | GPTQ v1 (checkpoint "gptq")  | the same                              | gptq_zeros(true): each field minus one |
// | AutoAWQ GEMM                 | awq_codes: 8 outputs a word, permuted | awq_zeros: the same order              |
//
// Words are little-endian bit streams: element c of a stream occupies bits [c b, (c + 1) b), low bits first.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/quantized_view.hpp>

#include <cstdint>
#include <cstring>

namespace slimtrim {
inline namespace v0 {

/// Packs n codes of `bits` bits (1 to 8) into packed_words(n, bits) words; unused high bits are zero.
inline void pack_codes(std::uint8_t const* codes, index_t n, int bits, std::uint32_t* words) {
  index_t i = 0;
  if (bits == 4) {
    // Eight bytes at a time: neighbours are merged into 8-, 16- and 32-bit fields. Read as what may alias bytes, so that the loop
    // becomes vectors.
    using eight_bytes [[gnu::may_alias, gnu::aligned(1)]] = std::uint64_t;
    auto const* const eights = reinterpret_cast<eight_bytes const*>(codes);
    for (index_t w = 0; w < n / 8; ++w) {
      std::uint64_t x = eights[w];
      x = (x | (x >> 4)) & 0x00ff00ff00ff00ffU;
      x = (x | (x >> 8)) & 0x0000ffff0000ffffU;
      words[w] = static_cast<std::uint32_t>(x | (x >> 16));
    }
    i = n / 8 * 8;
  } else if (bits == 8) {
    for (; i + 4 <= n; i += 4) std::memcpy(words + (i >> 2), codes + i, 4);
  }
  std::uint64_t pending = 0;
  int held = 0;
  std::uint32_t* out = words + ((i * bits) >> 5);
  for (; i < n; ++i) {
    pending |= static_cast<std::uint64_t>(codes[i]) << held;
    held += bits;
    if (held >= 32) {
      *out++ = static_cast<std::uint32_t>(pending);
      pending >>= 32;
      held -= 32;
    }
  }
  if (held > 0) *out = static_cast<std::uint32_t>(pending);
}

/// The inverse of pack_codes.
inline void unpack_codes(std::uint32_t const* words, index_t n, int bits, std::uint8_t* codes) {
  std::uint32_t const mask = (std::uint32_t{1} << bits) - 1U;
  std::uint64_t pending = 0;
  int held = 0;
  for (index_t i = 0; i < n; ++i) {
    if (held < bits) {
      pending |= static_cast<std::uint64_t>(*words++) << held;
      held += 32;
    }
    codes[i] = static_cast<std::uint8_t>(pending & mask);
    pending >>= bits;
    held -= bits;
  }
}

/// compressed-tensors' zero points: zeros [N, G] -> words [ceil(N bits / 32), G], column g a stream along N.
[[nodiscard]] inline matrix<std::uint32_t> pack_zeros(matrix_view<std::uint8_t const> zeros, int bits) {
  index_t const n = zeros.extent(0), groups = zeros.extent(1), height = packed_words(n, bits);
  matrix<std::uint32_t> words(height, groups);
  buffer<std::uint8_t> codes(n);
  buffer<std::uint32_t> stream(height);
  for (index_t g = 0; g < groups; ++g) {
    for (index_t i = 0; i < n; ++i) codes[i] = zeros(i, g);
    pack_codes(codes.data(), n, bits, stream.data());
    for (index_t i = 0; i < height; ++i) words(i, g) = stream[i];
  }
  return words;
}

/// The inverse of pack_zeros for N = `rows`. Throws `error` when the words are too few.
[[nodiscard]] inline matrix<std::uint8_t> unpack_zeros(matrix_view<std::uint32_t const> words, index_t rows, int bits) {
  expects_equal(words.extent(0), packed_words(rows, bits), "unpack_zeros", "rows of packed zero points");
  matrix<std::uint8_t> zeros(rows, words.extent(1));
  buffer<std::uint8_t> codes(rows);
  buffer<std::uint32_t> stream(words.extent(0));
  for (index_t g = 0; g < words.extent(1); ++g) {
    for (index_t i = 0; i < words.extent(0); ++i) stream[i] = words(i, g);
    unpack_codes(stream.data(), rows, bits, codes.data());
    for (index_t i = 0; i < rows; ++i) zeros(i, g) = codes[i];
  }
  return zeros;
}

/// GPTQ qweight: [K bits / 32, N] from W: [N, K]. Throws `error` when a row does not fill whole words.
[[nodiscard]] inline matrix<std::uint32_t> gptq_codes(quantized_view<> const& w) {
  expects(w.columns * w.bits % 32 == 0, "gptq_codes", "a row of GPTQ codes must fill whole 32-bit words");
  matrix<std::uint32_t> words(packed_words(w.columns, w.bits), w.rows);
  for (index_t r = 0; r < w.rows; ++r)
    for (index_t k = 0; k < words.extent(0); ++k) words(k, r) = w.words[r * w.words_per_row + k];
  return words;
}

/// GPTQ qzeros: [G, N bits / 32] from `zeros` [N, G], natural order along N. Version 1 stores each zero minus one, modulo
/// 2^bits inside its own field: exact for symmetric grids, and for z = 0 a wrapped field that the reader unwraps.
[[nodiscard]] inline matrix<std::uint32_t> gptq_zeros(matrix_view<std::uint8_t const> zeros, int bits,
                                                      bool stored_minus_one) {
  index_t const n = zeros.extent(0), groups = zeros.extent(1), width = packed_words(n, bits);
  expects(n * bits % 32 == 0, "gptq_zeros", "a row of GPTQ zero points must fill whole 32-bit words");
  matrix<std::uint32_t> words(groups, width);
  buffer<std::uint8_t> codes(n);
  unsigned const mask = (1U << bits) - 1U, less = stored_minus_one ? 1U : 0U;
  for (index_t g = 0; g < groups; ++g) {
    for (index_t i = 0; i < n; ++i) codes[i] = static_cast<std::uint8_t>((zeros(i, g) - less) & mask);
    pack_codes(codes.data(), n, bits, &words(g, 0));
  }
  return words;
}

/// The inverse of gptq_zeros: [N, G].
[[nodiscard]] inline matrix<std::uint8_t> gptq_zeros_of(matrix_view<std::uint32_t const> words, index_t rows, int bits,
                                                        bool stored_minus_one) {
  expects_equal(words.extent(1), packed_words(rows, bits), "gptq_zeros_of", "columns of packed zero points");
  matrix<std::uint8_t> zeros(rows, words.extent(0));
  buffer<std::uint8_t> codes(rows);
  buffer<std::uint32_t> stream(words.extent(1));
  unsigned const mask = (1U << bits) - 1U, more = stored_minus_one ? 1U : 0U;
  for (index_t g = 0; g < words.extent(0); ++g) {
    for (index_t i = 0; i < words.extent(1); ++i) stream[i] = words(g, i);
    unpack_codes(stream.data(), rows, bits, codes.data());
    for (index_t i = 0; i < rows; ++i) zeros(i, g) = static_cast<std::uint8_t>((codes[i] + more) & mask);
  }
  return zeros;
}

/// Row words [N, words a row] (as quantized_view has them) from GPTQ qweight [K bits / 32, N].
[[nodiscard]] inline matrix<std::uint32_t> words_of_gptq(matrix_view<std::uint32_t const> qweight) {
  matrix<std::uint32_t> words(qweight.extent(1), qweight.extent(0));
  for (index_t k = 0; k < qweight.extent(0); ++k)
    for (index_t r = 0; r < qweight.extent(1); ++r) words(r, k) = qweight(k, r);
  return words;
}

namespace detail {

// Nibble i of an AWQ word holds output awq_order[i] of its eight.
inline constexpr int awq_order[8] = {0, 2, 4, 6, 1, 3, 5, 7};

template <class Code>
matrix<std::uint32_t> pack_awq(index_t depth, index_t outputs, Code&& code) {
  expects(outputs % 8 == 0, "awq", "AWQ packs 8 outputs a word: the number of outputs must be a multiple of 8");
  matrix<std::uint32_t> words(depth, outputs / 8);
  for (index_t k = 0; k < depth; ++k)
    for (index_t c = 0; c < outputs / 8; ++c) {
      std::uint32_t word = 0;
      for (int i = 0; i < 8; ++i) word |= static_cast<std::uint32_t>(code(8 * c + awq_order[i], k)) << (4 * i);
      words(k, c) = word;
    }
  return words;
}

}  // namespace detail

/// AutoAWQ GEMM qweight: [K, N / 8] from 4-bit W: [N, K].
[[nodiscard]] inline matrix<std::uint32_t> awq_codes(quantized_view<> const& w) {
  expects_equal(w.bits, 4, "awq_codes", "bits");
  return detail::pack_awq(w.columns, w.rows, [&](index_t n, index_t k) { return w.code(n, k); });
}

/// AutoAWQ GEMM qzeros: [G, N / 8] from zeros [N, G].
[[nodiscard]] inline matrix<std::uint32_t> awq_zeros(matrix_view<std::uint8_t const> zeros) {
  return detail::pack_awq(zeros.extent(1), zeros.extent(0), [&](index_t n, index_t g) { return zeros(n, g); });
}

/// Codes [N, D] from AWQ words [D, N / 8]: the inverse of awq_codes and of awq_zeros.
[[nodiscard]] inline matrix<std::uint8_t> codes_of_awq(matrix_view<std::uint32_t const> words) {
  matrix<std::uint8_t> codes(words.extent(1) * 8, words.extent(0));
  for (index_t k = 0; k < words.extent(0); ++k)
    for (index_t c = 0; c < words.extent(1); ++c)
      for (int i = 0; i < 8; ++i)
        codes(8 * c + detail::awq_order[i], k) = static_cast<std::uint8_t>((words(k, c) >> (4 * i)) & 15U);
  return codes;
}

}  // namespace v0
}  // namespace slimtrim
