// The integer dot products under panels of codes times 8-bit activations.
//
// On x86 a product of an unsigned and a signed byte is added to its neighbour in 16 bits. A 4-bit block fits: 8 sums of
// two products of at most 15 * 127 stay below 2^15. An 8-bit code minus 128 is multiplied as magnitude times signed
// activation, two products at most 2 * 128 * 127 < 2^15, and widened at once. With VNNI both add in 32 bits directly.

#if defined(SLIMTRIM_SIMD_TARGET_BYTE_DOT_TOGGLE) == defined(HWY_TARGET_TOGGLE)
#ifdef SLIMTRIM_SIMD_TARGET_BYTE_DOT_TOGGLE
#undef SLIMTRIM_SIMD_TARGET_BYTE_DOT_TOGGLE
#else
#define SLIMTRIM_SIMD_TARGET_BYTE_DOT_TOGGLE
#endif

#include <slimtrim/simd/target/lanes.hpp>

#include <cstring>

#undef SLIMTRIM_SIMD_X86_BYTES
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128
#define SLIMTRIM_SIMD_X86_BYTES 1
#include <immintrin.h>
#else
#define SLIMTRIM_SIMD_X86_BYTES 0
#endif

HWY_BEFORE_NAMESPACE();
// Highway 1.0 names this target after VNNI but does not switch the 512-bit instructions on.
#if HWY_TARGET == HWY_AVX3_DL
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx512vnni")
#endif
#endif
namespace slimtrim {
inline namespace v0 {
namespace simd {
namespace HWY_NAMESPACE {

/// Four consecutive activation codes as one word.
HWY_INLINE std::int32_t four_codes(std::int8_t const* a) {
  std::int32_t value;
  std::memcpy(&value, a, sizeof value);
  return value;
}

#if SLIMTRIM_SIMD_X86_BYTES

#if HWY_TARGET == HWY_AVX3_DL
HWY_INLINE __m512i byte_dot(__m512i sum, __m512i u, __m512i s) { return _mm512_dpbusd_epi32(sum, u, s); }
HWY_INLINE __m256i byte_dot(__m256i sum, __m256i u, __m256i s) { return _mm256_dpbusd_epi32(sum, u, s); }
#endif
#if HWY_TARGET == HWY_AVX3
HWY_INLINE __m512i byte_pairs(__m512i u, __m512i s) { return _mm512_maddubs_epi16(u, s); }
HWY_INLINE __m512i add16(__m512i a, __m512i b) { return _mm512_add_epi16(a, b); }
HWY_INLINE __m512i widen16(__m512i a) { return _mm512_madd_epi16(a, _mm512_set1_epi16(1)); }
HWY_INLINE __m512i magnitude8(__m512i a) { return _mm512_abs_epi8(a); }
HWY_INLINE __m512i sign8(__m512i a, __m512i by) {
  return _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(by), _mm512_setzero_si512(), a);
}
#endif
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
HWY_INLINE __m256i byte_pairs(__m256i u, __m256i s) { return _mm256_maddubs_epi16(u, s); }
HWY_INLINE __m256i add16(__m256i a, __m256i b) { return _mm256_add_epi16(a, b); }
HWY_INLINE __m256i widen16(__m256i a) { return _mm256_madd_epi16(a, _mm256_set1_epi16(1)); }
HWY_INLINE __m256i magnitude8(__m256i a) { return _mm256_abs_epi8(a); }
HWY_INLINE __m256i sign8(__m256i a, __m256i by) { return _mm256_sign_epi8(a, by); }
#endif
#if HWY_TARGET == HWY_SSSE3 || HWY_TARGET == HWY_SSE4
HWY_INLINE __m128i byte_pairs(__m128i u, __m128i s) { return _mm_maddubs_epi16(u, s); }
HWY_INLINE __m128i add16(__m128i a, __m128i b) { return _mm_add_epi16(a, b); }
HWY_INLINE __m128i widen16(__m128i a) { return _mm_madd_epi16(a, _mm_set1_epi16(1)); }
HWY_INLINE __m128i magnitude8(__m128i a) { return _mm_abs_epi8(a); }
HWY_INLINE __m128i sign8(__m128i a, __m128i by) { return _mm_sign_epi8(a, by); }
#endif

#endif  // SLIMTRIM_SIMD_X86_BYTES

/// With VNNI bytes of codes stay unsigned; elsewhere 8-bit codes are taken minus 128, as signed bytes.
#if HWY_TARGET == HWY_AVX3_DL
template <element_kind Kind>
inline constexpr bool signed_codes = false;
#else
template <element_kind Kind>
inline constexpr bool signed_codes = Kind == element_kind::codes8;
#endif

/// Byte B of every word, sign-extended.
template <int B>
HWY_INLINE integers signed_byte(words const& x) {
  return right<24>(as_integers(left<24 - 8 * B>(x)));
}

/// sum + the products of the four bytes of every word of w with the four activation codes at `a`. What `sum` holds
/// until finish_dot is the target's own: on x86 without VNNI, 4-bit products are added in pairs of 16-bit halves.
template <element_kind Kind>
HWY_INLINE integers add_dot(integers const& sum, words const& w, std::int8_t const* a) {
#if SLIMTRIM_SIMD_X86_BYTES
  integers out;
  auto const activation = hn::Set(tag_i{}, four_codes(a));
  SLIMTRIM_UNROLL for (std::size_t i = 0; i < parts; ++i) {
#if HWY_TARGET == HWY_AVX3_DL
    out.part[i] = vector_i{byte_dot(sum.part[i].raw, w.part[i].raw, activation.raw)};
#else
    if constexpr (Kind == element_kind::codes4) {
      out.part[i] = vector_i{add16(sum.part[i].raw, byte_pairs(w.part[i].raw, activation.raw))};
    } else {
      auto const with_sign = sign8(activation.raw, w.part[i].raw);
      out.part[i] = hn::Add(sum.part[i], vector_i{widen16(byte_pairs(magnitude8(w.part[i].raw), with_sign))});
    }
#endif
  }
  return out;
#else
  integers out = add(sum, multiply(signed_byte<0>(w), broadcast(std::int32_t{a[0]})));
  out = add(out, multiply(signed_byte<1>(w), broadcast(std::int32_t{a[1]})));
  out = add(out, multiply(signed_byte<2>(w), broadcast(std::int32_t{a[2]})));
  return add(out, multiply(signed_byte<3>(w), broadcast(std::int32_t{a[3]})));
#endif
}

/// Whether what add_dot sums up is not 32 bits wide yet, so that the start of a sum must be added at its end.
template <element_kind Kind>
inline constexpr bool narrow_sums = SLIMTRIM_SIMD_X86_BYTES&& HWY_TARGET != HWY_AVX3_DL&& Kind == element_kind::codes4;

/// A sum for add_dot that finish_dot, given the same start, turns into start + products.
template <element_kind Kind>
HWY_INLINE integers begin_dot(integers const& start) {
  if constexpr (narrow_sums<Kind>) return broadcast(std::int32_t{0});
  return start;
}

template <element_kind Kind>
HWY_INLINE floats finish_dot(integers const& sum, integers const& start) {
#if SLIMTRIM_SIMD_X86_BYTES && HWY_TARGET != HWY_AVX3_DL
  if constexpr (narrow_sums<Kind>) {
    integers wide;
    SLIMTRIM_UNROLL for (std::size_t i = 0; i < parts; ++i) wide.part[i] = vector_i{widen16(sum.part[i].raw)};
    return convert(add(wide, start));
  }
#endif
  static_cast<void>(start);
  return convert(sum);
}

/// Bytes of 4 columns from stored word `word` of a block: for 4 bits the codes at even (Odd = 0) or odd places.
template <element_kind Kind, int Odd>
HWY_INLINE words code_bytes(std::byte const* block, int word) {
  words const x = load(reinterpret_cast<std::uint32_t const*>(block) + word * lanes);
  if constexpr (Kind == element_kind::codes4) {
    if constexpr (Odd == 0) return mask(x, 0x0f0f0f0fU);
    return mask(right<4>(x), 0x0f0f0f0fU);
  } else {
    if constexpr (signed_codes<Kind>) return flip(x, 0x80808080U);
    return x;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
#if HWY_TARGET == HWY_AVX3_DL && defined(__clang__)
#pragma clang attribute pop
#endif
HWY_AFTER_NAMESPACE();

#endif  // toggle
