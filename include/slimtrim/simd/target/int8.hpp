// Panels of codes times 8-bit activations: integer dot products of 32 columns, then one multiply-add in float a block.
//
// On x86 a product of an unsigned and a signed byte is added to its neighbour in 16 bits. A 4-bit block fits: 8 sums of
// two products of at most 15 * 127 stay below 2^15. An 8-bit code minus 128 is multiplied as magnitude times signed
// activation, two products at most 2 * 128 * 127 < 2^15, and widened at once. With VNNI both add in 32 bits directly.

#if defined(SLIMTRIM_SIMD_TARGET_INT8_TOGGLE) == defined(HWY_TARGET_TOGGLE)
#ifdef SLIMTRIM_SIMD_TARGET_INT8_TOGGLE
#undef SLIMTRIM_SIMD_TARGET_INT8_TOGGLE
#else
#define SLIMTRIM_SIMD_TARGET_INT8_TOGGLE
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

/// Byte B of every word, sign-extended.
template <int B>
HWY_INLINE integers signed_byte(words const& x) {
  return right<24>(as_integers(left<24 - 8 * B>(x)));
}

/// sum over the 32 columns of a block of w a, for every row. 4-bit: w[2 j] and w[2 j + 1] hold the codes of the even and
/// odd places of word j, one a byte. 8-bit: w[j] holds codes - 128 as signed bytes.
template <element_kind Kind>
HWY_INLINE integers dot_block(words const (&w)[8], std::int8_t const* a) {
  integers sum;
#if SLIMTRIM_SIMD_X86_BYTES && HWY_TARGET == HWY_AVX3_DL
  SLIMTRIM_UNROLL for (std::size_t i = 0; i < parts; ++i) {
    auto const one = hn::Set(tag_i{}, 0x01010101).raw;
    auto total = hn::Zero(tag_i{}).raw;
    SLIMTRIM_UNROLL for (int j = 0; j < 8; ++j) {
      auto const activation = hn::Set(tag_i{}, four_codes(a + 4 * j)).raw;
      if constexpr (Kind == element_kind::codes4) {
        total = byte_dot(total, w[j].part[i].raw, activation);
      } else {
        // (w + 128) a - 128 a, the second by a dot of a with 128 = 0x80 unsigned.
        total = byte_dot(total, hn::Xor(w[j].part[i], hn::Set(tag_u{}, 0x80808080U)).raw, activation);
        total = hn::Sub(hn::Vec<tag_i>{total}, hn::ShiftLeft<7>(hn::Vec<tag_i>{
                                                   byte_dot(hn::Zero(tag_i{}).raw, one, activation)})).raw;
      }
    }
    sum.part[i] = hn::Vec<tag_i>{total};
  }
#elif SLIMTRIM_SIMD_X86_BYTES
  SLIMTRIM_UNROLL for (std::size_t i = 0; i < parts; ++i) {
    if constexpr (Kind == element_kind::codes4) {
      auto total = byte_pairs(w[0].part[i].raw, hn::Set(tag_i{}, four_codes(a)).raw);
      SLIMTRIM_UNROLL for (int j = 1; j < 8; ++j) {
        total = add16(total, byte_pairs(w[j].part[i].raw, hn::Set(tag_i{}, four_codes(a + 4 * j)).raw));
      }
      sum.part[i] = hn::Vec<tag_i>{widen16(total)};
    } else {
      auto total = hn::Zero(tag_i{});
      SLIMTRIM_UNROLL for (int j = 0; j < 8; ++j) {
        auto const raw = w[j].part[i].raw;
        auto const activation = sign8(hn::Set(tag_i{}, four_codes(a + 4 * j)).raw, raw);
        total = hn::Add(total, hn::Vec<tag_i>{widen16(byte_pairs(magnitude8(raw), activation))});
      }
      sum.part[i] = total;
    }
  }
#else
  sum = broadcast(std::int32_t{0});
  for (int j = 0; j < 8; ++j) {
    std::int8_t const* const at = a + 4 * j;
    sum = add(sum, multiply(signed_byte<0>(w[j]), broadcast(std::int32_t{at[0]})));
    sum = add(sum, multiply(signed_byte<1>(w[j]), broadcast(std::int32_t{at[1]})));
    sum = add(sum, multiply(signed_byte<2>(w[j]), broadcast(std::int32_t{at[2]})));
    sum = add(sum, multiply(signed_byte<3>(w[j]), broadcast(std::int32_t{at[3]})));
  }
#endif
  return sum;
}

/// The 8 vectors of bytes of one block of 32 columns, ready for dot_block.
template <element_kind Kind>
HWY_INLINE void load_block(std::byte const* from, words (&w)[8]) {
  auto const* const p = reinterpret_cast<std::uint32_t const*>(from);
  if constexpr (Kind == element_kind::codes4) {
    SLIMTRIM_UNROLL for (int j = 0; j < 4; ++j) {
      words const x = load(p + j * lanes);
      w[2 * j] = mask(x, 0x0f0f0f0fU);
      w[2 * j + 1] = mask(right<4>(x), 0x0f0f0f0fU);
    }
  } else {
    SLIMTRIM_UNROLL for (int j = 0; j < 8; ++j) w[j] = flip(load(p + j * lanes), 0x80808080U);
  }
}

/// One panel. Fixed > 0: that many tokens, sums in registers; 0: `tokens` of them.
template <element_kind Kind, int Fixed>
HWY_INLINE void int8_panel(panel_view const& view, index_t panel, int8_activations const& X, index_t tokens,
                           output_rows const& out) {
  std::byte const* from = view.data + panel * view.panel_bytes;
  constexpr int most = Fixed > 0 ? Fixed : static_cast<int>(int8_tokens);
  int const count = Fixed > 0 ? Fixed : static_cast<int>(tokens);
  floats total[std::size_t{most}];
  index_t row[std::size_t{most}];
  for (int t = 0; t < count; ++t) {
    total[t] = zero_floats();
    row[t] = X.row(t) * X.blocks;
  }
  constexpr float offset = Kind == element_kind::codes8 ? 128.0F : 0.0F;
  index_t block = 0;
  while (block < view.blocks) {
    index_t const last = block + view.group_blocks < view.blocks ? block + view.group_blocks : view.blocks;
    auto const* const head = reinterpret_cast<float const*>(from);
    floats const scale = load(head);
    floats const zero = subtract(view.has_zeros ? load(head + lanes) : broadcast(view.middle), broadcast(offset));
    from += view.head_bytes();
    for (; block < last; ++block) {
      words w[8];
      load_block<Kind>(from, w);
      from += view.block_bytes();
      if constexpr (Fixed > 0) {
        SLIMTRIM_UNROLL for (int t = 0; t < Fixed; ++t) {
          index_t const at = row[t] + block;
          floats const dot = convert(dot_block<Kind>(w, X.codes + at * block_columns));
          floats const centred = subtract(dot, multiply(zero, broadcast(X.sums[at])));
          total[t] = multiply_add(multiply(scale, broadcast(X.scales[at])), centred, total[t]);
        }
      } else {
        for (int t = 0; t < count; ++t) {
          index_t const at = row[t] + block;
          floats const dot = convert(dot_block<Kind>(w, X.codes + at * block_columns));
          floats const centred = subtract(dot, multiply(zero, broadcast(X.sums[at])));
          total[t] = multiply_add(multiply(scale, broadcast(X.scales[at])), centred, total[t]);
        }
      }
    }
  }
  for (int t = 0; t < count; ++t) store_some(total[t], out.data + t * out.token_stride, out.row_stride, out.rows);
}

template <element_kind Kind>
HWY_NOINLINE void int8_of(panel_view const& view, index_t panel, index_t panels, int8_activations const& X,
                          index_t tokens, output_rows out) {
  for (index_t p = 0; p < panels; ++p) {
    switch (tokens) {
      case 1: int8_panel<Kind, 1>(view, panel + p, X, tokens, out); break;
      case 2: int8_panel<Kind, 2>(view, panel + p, X, tokens, out); break;
      case 3: int8_panel<Kind, 3>(view, panel + p, X, tokens, out); break;
      case 4: int8_panel<Kind, 4>(view, panel + p, X, tokens, out); break;
      default: int8_panel<Kind, 0>(view, panel + p, X, tokens, out); break;
    }
    out.data += lanes * out.row_stride;
    out.rows -= lanes;
  }
}

inline void int8_product(panel_view const& view, index_t panel, index_t panels, int8_activations const& X,
                         index_t tokens, output_rows out) {
  if (view.kind == element_kind::codes4) return int8_of<element_kind::codes4>(view, panel, panels, X, tokens, out);
  if (view.kind == element_kind::codes8) return int8_of<element_kind::codes8>(view, panel, panels, X, tokens, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
HWY_AFTER_NAMESPACE();

#endif  // toggle
