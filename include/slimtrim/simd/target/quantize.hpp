// Weights to symmetric 4-bit codes: the largest magnitude of every group of a row, then code and packed word in one
// pass.

#if defined(SLIMTRIM_SIMD_TARGET_QUANTIZE_TOGGLE) == defined(HWY_TARGET_TOGGLE)
#ifdef SLIMTRIM_SIMD_TARGET_QUANTIZE_TOGGLE
#undef SLIMTRIM_SIMD_TARGET_QUANTIZE_TOGGLE
#else
#define SLIMTRIM_SIMD_TARGET_QUANTIZE_TOGGLE
#endif

#include <slimtrim/simd/target/lanes.hpp>

HWY_BEFORE_NAMESPACE();
namespace slimtrim {
inline namespace v0 {
namespace simd {
namespace HWY_NAMESPACE {

/// The largest |w| of `count` elements (a multiple of 32) as the bits of a float: NaN and infinity come out on top.
template <class T>
HWY_INLINE std::uint32_t group_largest(T const* w, index_t count) {
  integers largest = broadcast(std::int32_t{0});
  for (index_t k = 0; k < count; k += lanes) {
    fetch_ahead(reinterpret_cast<std::byte const*>(w + k) + bytes_ahead, 1);
    largest = larger(largest, as_integers(mask(as_words(load(w + k)), 0x7fffffffU)));
  }
  return static_cast<std::uint32_t>(largest_lane(largest));
}

/// Divides by one scale as division rounds, where the quotient is small enough to become a code.
struct divisor {
  floats scale, opposite, inverse;

  HWY_INLINE explicit divisor(float value)
      : scale(broadcast(value)), opposite(broadcast(-value)), inverse(broadcast(1.0F / value)) {}
  HWY_INLINE floats exactly(floats const& w) const { return divide(w, scale); }
  /// The same for scales in 2^-100 .. 2^100 and quotients that are finite (beyond 16 all are one code), at a third of the cost. With y = 1 / s rounded, q = w y is off
  /// by at most two units in its last place, w - q s is exact when fused, and q + (w - q s) y rounds as w / s does (Markstein
  /// 1990): before rounding it is within 2^-47 of the quotient, and two floats' quotient is no nearer than 2^-45 to where rounding
  /// changes sides.
  HWY_INLINE floats by_inverse(floats const& w) const {
    floats const q = multiply(w, inverse);
    return multiply_add(multiply_add(q, opposite, w), inverse, q);
  }
};

/// Eight codes a word of 32 weights: round(clamp(w / scale, -8, 7)) + 8, ties to even.
template <bool ByInverse, class T>
HWY_INLINE void encode_block(T const* w, divisor const& by, std::uint32_t* out) {
  auto* const bytes = reinterpret_cast<std::uint8_t*>(out);
  SLIMTRIM_UNROLL for (int k = 0; k < static_cast<int>(block_columns); k += lanes) {
    floats const quotient = ByInverse ? by.by_inverse(load(w + k)) : by.exactly(load(w + k));
    floats const bounded = smaller(larger(quotient, broadcast(-8.0F)), broadcast(7.0F));
    // 1.5 * 2^23 + 8 leaves the whole number nearest to the rest, plus 8, in the low bits; 8 is even, so ties stay as they are.
    store_nibbles(as_integers(mask(as_words(add(bounded, broadcast(12582920.0F))), 15U)), bytes + k / 2);
  }
}

template <class T>
HWY_NOINLINE void largest_of(T const* row, index_t columns, index_t group, std::uint32_t* largest) {
  for (index_t first = 0; first < columns; first += group)
    *largest++ = group_largest(row + first, first + group < columns ? group : columns - first);
}

template <class T>
HWY_NOINLINE void encode_of(T const* row, index_t columns, index_t group, float const* scales, std::uint32_t* out) {
  for (index_t first = 0; first < columns; first += group, ++scales) {
    index_t const last = first + group < columns ? first + group : columns;
    divisor const by(*scales);
    std::uint32_t* to = out + first / 8;
    if (fused_multiply_add && *scales >= 0x1p-100F && *scales <= 0x1p100F) {
      for (index_t k = first; k < last; k += block_columns, to += 4) {
        __builtin_prefetch(to + bytes_ahead / 16, 1);
        encode_block<true>(row + k, by, to);
      }
    } else {
      for (index_t k = first; k < last; k += block_columns, to += 4) encode_block<false>(row + k, by, to);
    }
  }
}

inline void group_magnitudes(element_kind kind, void const* row, index_t columns, index_t group,
                             std::uint32_t* largest) {
  if (kind == element_kind::floats) return largest_of(static_cast<float const*>(row), columns, group, largest);
  if (kind == element_kind::bfloat16_pairs)
    return largest_of(static_cast<bfloat16 const*>(row), columns, group, largest);
  return largest_of(static_cast<float16 const*>(row), columns, group, largest);
}

inline void encode4(element_kind kind, void const* row, index_t columns, index_t group, float const* scales,
                    std::uint32_t* out) {
  if (kind == element_kind::floats) return encode_of(static_cast<float const*>(row), columns, group, scales, out);
  if (kind == element_kind::bfloat16_pairs)
    return encode_of(static_cast<bfloat16 const*>(row), columns, group, scales, out);
  return encode_of(static_cast<float16 const*>(row), columns, group, scales, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
HWY_AFTER_NAMESPACE();

#endif  // toggle
