// The 32-wide blocks of GGUF: Q8_0 and Q4_0, each one half-precision scale and 32 codes.
//
// | type | bytes | block                                                                             | element       |
// |------|------:|-----------------------------------------------------------------------------------|---------------|
// | Q8_0 |    34 | half d, int8 q[32]                                                                | q d           |
// | Q4_0 |    18 | half d, 16 bytes: element j in the low nibble of byte j, 16 + j in the high one    | (u - 8) d     |
//
// Rows are whole blocks. Values are encoded as ggml's reference does, byte for byte where the compiler keeps products and sums
// apart (one that fuses them may take the other neighbour of a tie); codes that were found by a better method (searched
// scales, GPTQ) are taken over as they are.
#pragma once

#include <slimtrim/core/float16.hpp>
#include <slimtrim/core/index.hpp>
#include <slimtrim/tensor/quantized_view.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace slimtrim {
inline namespace v0 {

inline constexpr index_t gguf_block = 32;
inline constexpr index_t q8_0_bytes = 34, q4_0_bytes = 18;

namespace detail {

inline void put_half(std::byte* out, std::uint16_t bits) { std::memcpy(out, &bits, 2); }
[[nodiscard]] inline float half_at(std::byte const* in) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, in, 2);
  return static_cast<float>(float16::from_bits(bits));
}
// 1 / d, or 0 where that is no number: the block is too small for its scale and becomes zero.
[[nodiscard]] inline float gguf_inverse(float d) {
  float const inverse = d != 0 ? 1.0F / d : 0.0F;
  return std::isfinite(inverse) ? inverse : 0.0F;
}
// Whether all of the block's zero points are the middle code.
[[nodiscard]] inline bool has_middle_zero(quantized_view<> const& w, index_t r, index_t c) {
  return w.zero(r, c) == 1 << (w.bits - 1);
}
// The half that equals `scale`; false when there is none.
[[nodiscard]] inline bool exact_half(float scale, std::uint16_t& bits) {
  bits = float16(scale).bits;
  return static_cast<float>(float16::from_bits(bits)) == scale;
}
[[nodiscard]] inline bool takes_gguf_blocks(quantized_view<> const& w, int bits) {
  return w.bits == bits && w.column_group == nullptr && w.columns % gguf_block == 0 &&
         (w.block_columns % gguf_block == 0 || w.block_columns >= w.columns);
}

}  // namespace detail

/// Encodes n values, a multiple of 32: d = max|x| / 127, q = round(x / d), half away from zero. Where d is above the
/// largest half it becomes infinite: a caller who cannot rule that out looks at what `decode_q8_0` gives.
inline void encode_q8_0(float const* x, index_t n, std::byte* out) {
  for (index_t first = 0; first < n; first += gguf_block, out += q8_0_bytes) {
    float largest = 0;
    for (index_t i = 0; i < gguf_block; ++i) {
      float const magnitude = std::fabs(x[first + i]);
      largest = magnitude > largest ? magnitude : largest;
    }
    float const d = largest / 127.0F, inverse = detail::gguf_inverse(d);
    detail::put_half(out, float16(d).bits);
    for (index_t i = 0; i < gguf_block; ++i)
      out[2 + i] = static_cast<std::byte>(static_cast<std::int8_t>(std::round(x[first + i] * inverse)));
  }
}

/// Encodes n values, a multiple of 32: d = m / -8 with m the value of largest magnitude (the first of equals),
/// u = min(15, trunc(x / d + 8.5)). About infinite d as `encode_q8_0`.
inline void encode_q4_0(float const* x, index_t n, std::byte* out) {
  for (index_t first = 0; first < n; first += gguf_block, out += q4_0_bytes) {
    float largest = 0, extreme = 0;
    for (index_t i = 0; i < gguf_block; ++i) {
      float const value = x[first + i], magnitude = std::fabs(value);
      extreme = magnitude > largest ? value : extreme;
      largest = magnitude > largest ? magnitude : largest;
    }
    float const d = extreme / -8.0F, inverse = detail::gguf_inverse(d);
    detail::put_half(out, float16(d).bits);
    auto const code = [&](index_t i) {
      int const u = static_cast<int>(x[first + i] * inverse + 8.5F);
      return static_cast<unsigned>(u < 15 ? u : 15);
    };
    for (index_t j = 0; j < 16; ++j) out[2 + j] = static_cast<std::byte>(code(j) | code(j + 16) << 4);
  }
}

inline void decode_q8_0(std::byte const* in, index_t n, float* x) {
  for (index_t first = 0; first < n; first += gguf_block, in += q8_0_bytes) {
    float const d = detail::half_at(in);
    for (index_t i = 0; i < gguf_block; ++i) x[first + i] = static_cast<float>(static_cast<std::int8_t>(in[2 + i])) * d;
  }
}

inline void decode_q4_0(std::byte const* in, index_t n, float* x) {
  for (index_t first = 0; first < n; first += gguf_block, in += q4_0_bytes) {
    float const d = detail::half_at(in);
    for (index_t j = 0; j < 16; ++j) {
      auto const both = static_cast<unsigned>(in[2 + j]);
      x[first + j] = static_cast<float>(static_cast<int>(both & 15U) - 8) * d;
      x[first + 16 + j] = static_cast<float>(static_cast<int>(both >> 4) - 8) * d;
    }
  }
}

/// Row r of a 4-bit matrix as Q4_0 blocks with the same codes and scales, so that every element keeps its value. False,
/// with `out` in any state, when blocks cannot say that: other bits, groups that do not hold whole blocks, an
/// activation order, zero points, a scale that is no half (above 65504, or a bfloat16 below 2^-17).
[[nodiscard]] inline bool repack_q4_0(quantized_view<> const& w, index_t r, std::byte* out) {
  if (!detail::takes_gguf_blocks(w, 4)) return false;
  std::uint32_t const* const words = w.words + r * w.words_per_row;
  for (index_t first = 0; first < w.columns; first += gguf_block, out += q4_0_bytes) {
    std::uint16_t scale = 0;
    if (!detail::has_middle_zero(w, r, first) ||
        !detail::exact_half(w.scales(r / w.block_rows, w.group_of(first)), scale))
      return false;
    detail::put_half(out, scale);
    // Two words hold the low nibbles of eight bytes each, the next two the high ones.
    std::uint32_t const* const block = words + first / 8;
    for (index_t half = 0; half < 2; ++half)
      for (index_t j = 0; j < 8; ++j) {
        std::uint32_t const low = block[half] >> (4 * j) & 15U, high = block[2 + half] >> (4 * j) & 15U;
        out[2 + 8 * half + j] = static_cast<std::byte>(low | high << 4);
      }
  }
  return true;
}

/// Row r of an 8-bit matrix as Q8_0 blocks; as `repack_q4_0`.
[[nodiscard]] inline bool repack_q8_0(quantized_view<> const& w, index_t r, std::byte* out) {
  if (!detail::takes_gguf_blocks(w, 8)) return false;
  auto const* const codes = reinterpret_cast<std::uint8_t const*>(w.words + r * w.words_per_row);
  for (index_t first = 0; first < w.columns; first += gguf_block, out += q8_0_bytes) {
    std::uint16_t scale = 0;
    if (!detail::has_middle_zero(w, r, first) ||
        !detail::exact_half(w.scales(r / w.block_rows, w.group_of(first)), scale))
      return false;
    detail::put_half(out, scale);
    for (index_t i = 0; i < gguf_block; ++i)
      out[2 + i] = static_cast<std::byte>(static_cast<std::uint8_t>(codes[first + i] - 128));
  }
  return true;
}

}  // namespace v0
}  // namespace slimtrim
