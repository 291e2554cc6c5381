// One panel's worth of lanes as if it were a single vector: 8 rows (16 with 512-bit vectors), built from as many
// Highway vectors as that takes. Kernels written over it serve every vector width.
//
// Compiled once per instruction set: the include guard follows Highway's convention for such headers, and everything
// lives in HWY_NAMESPACE. Scalable vectors (SVE, RVV) cannot be members of a struct and get plain arrays.

#if defined(SLIMTRIM_SIMD_TARGET_LANES_TOGGLE) == defined(HWY_TARGET_TOGGLE)
#ifdef SLIMTRIM_SIMD_TARGET_LANES_TOGGLE
#undef SLIMTRIM_SIMD_TARGET_LANES_TOGGLE
#else
#define SLIMTRIM_SIMD_TARGET_LANES_TOGGLE
#endif

#include <slimtrim/simd/kernel_table.hpp>

// Highway 1.0 leaves AVX-512 with VNNI out of its targets unless asked, and then refuses to compile where the compiler's
// flags make it the best one, as -march=native does on Sapphire Rapids and Zen 5.
#if !defined(HWY_WANT_AVX3_DL)
#define HWY_WANT_AVX3_DL 1
#endif
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#if !defined(SLIMTRIM_UNROLL)
#if defined(__clang__)
#define SLIMTRIM_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SLIMTRIM_UNROLL _Pragma("GCC unroll 32")
#endif
#endif

HWY_BEFORE_NAMESPACE();
namespace slimtrim {
inline namespace v0 {
namespace simd {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

#if defined(SLIMTRIM_SIMD_PANEL_ROWS)
inline constexpr int lanes = SLIMTRIM_SIMD_PANEL_ROWS;
#elif HWY_MAX_BYTES >= 64 && !HWY_HAVE_SCALABLE
inline constexpr int lanes = 16;
#else
inline constexpr int lanes = 8;
#endif

#if HWY_HAVE_SCALABLE

inline constexpr int width = 1;
template <class T>
struct plain_vector {
  T value;
};
using vector_f = plain_vector<float>;
using vector_u = plain_vector<std::uint32_t>;
using vector_i = plain_vector<std::int32_t>;

HWY_INLINE vector_f part_zero() { return {0.0F}; }
HWY_INLINE vector_f part_set(float x) { return {x}; }
HWY_INLINE vector_i part_set(std::int32_t x) { return {x}; }
HWY_INLINE vector_f part_load(float const* p) { return {*p}; }
HWY_INLINE vector_u part_load(std::uint32_t const* p) { return {*p}; }
HWY_INLINE void part_store(vector_f x, float* p) { *p = x.value; }
HWY_INLINE vector_f part_fma(vector_f a, vector_f b, vector_f c) { return {a.value * b.value + c.value}; }
HWY_INLINE vector_f part_add(vector_f a, vector_f b) { return {a.value + b.value}; }
HWY_INLINE vector_f part_sub(vector_f a, vector_f b) { return {a.value - b.value}; }
HWY_INLINE vector_f part_mul(vector_f a, vector_f b) { return {a.value * b.value}; }
HWY_INLINE vector_i part_add(vector_i a, vector_i b) { return {a.value + b.value}; }
HWY_INLINE vector_i part_mul(vector_i a, vector_i b) { return {a.value * b.value}; }
HWY_INLINE vector_u part_and(vector_u a, std::uint32_t mask) { return {a.value & mask}; }
HWY_INLINE vector_u part_xor(vector_u a, std::uint32_t mask) { return {a.value ^ mask}; }
HWY_INLINE vector_u part_or(vector_u a, vector_u b) { return {a.value | b.value}; }
template <int N>
HWY_INLINE vector_u part_right(vector_u a) {
  return {a.value >> N};
}
template <int N>
HWY_INLINE vector_u part_left(vector_u a) {
  return {a.value << N};
}
template <int N>
HWY_INLINE vector_i part_right(vector_i a) {
  return {a.value >> N};
}
HWY_INLINE vector_u part_add(vector_u a, std::uint32_t b) { return {a.value + b}; }
HWY_INLINE vector_f part_larger(vector_f a, vector_f b) { return {a.value > b.value ? a.value : b.value}; }
HWY_INLINE vector_f part_smaller(vector_f a, vector_f b) { return {a.value < b.value ? a.value : b.value}; }
HWY_INLINE vector_i part_larger(vector_i a, vector_i b) { return {a.value > b.value ? a.value : b.value}; }
HWY_INLINE std::int32_t part_largest(vector_i a) { return a.value; }
HWY_INLINE vector_f part_div(vector_f a, vector_f b) { return {a.value / b.value}; }
// For what is far below 2^22: adding 1.5 * 2^23 leaves the nearest whole number, ties to even, in the low bits.
HWY_INLINE vector_i part_nearest(vector_f a) {
  return {bits_as<std::int32_t>(a.value + 12582912.0F) - 0x4b400000};
}
HWY_INLINE void part_store(vector_i x, std::int32_t* p) { *p = x.value; }
HWY_INLINE vector_f part_load_half(float16 const* p) { return {static_cast<float>(*p)}; }
HWY_INLINE vector_f part_load_half(bfloat16 const* p) { return {static_cast<float>(*p)}; }
HWY_INLINE vector_f part_load_byte(std::int8_t const* p) { return {static_cast<float>(*p)}; }
HWY_INLINE vector_u part_as_words(vector_f a) { return {bits_as<std::uint32_t>(a.value)}; }
HWY_INLINE vector_f part_convert(vector_i a) { return {static_cast<float>(a.value)}; }
HWY_INLINE vector_i part_to_int(vector_f a) { return {static_cast<std::int32_t>(a.value)}; }
HWY_INLINE vector_i part_as_int(vector_u a) { return {static_cast<std::int32_t>(a.value)}; }
HWY_INLINE vector_f part_as_float(vector_u a) { return {bits_as<float>(a.value)}; }

#else

using tag_f = hn::CappedTag<float, lanes>;
using tag_u = hn::RebindToUnsigned<tag_f>;
using tag_i = hn::RebindToSigned<tag_f>;
inline constexpr int width = static_cast<int>(hn::MaxLanes(tag_f{}));
using vector_f = hn::Vec<tag_f>;
using vector_u = hn::Vec<tag_u>;
using vector_i = hn::Vec<tag_i>;

HWY_INLINE vector_f part_zero() { return hn::Zero(tag_f{}); }
HWY_INLINE vector_f part_set(float x) { return hn::Set(tag_f{}, x); }
HWY_INLINE vector_i part_set(std::int32_t x) { return hn::Set(tag_i{}, x); }
HWY_INLINE vector_f part_load(float const* p) { return hn::LoadU(tag_f{}, p); }
HWY_INLINE vector_u part_load(std::uint32_t const* p) { return hn::LoadU(tag_u{}, p); }
HWY_INLINE void part_store(vector_f x, float* p) { hn::StoreU(x, tag_f{}, p); }
HWY_INLINE vector_f part_fma(vector_f a, vector_f b, vector_f c) { return hn::MulAdd(a, b, c); }
HWY_INLINE vector_f part_add(vector_f a, vector_f b) { return hn::Add(a, b); }
HWY_INLINE vector_f part_sub(vector_f a, vector_f b) { return hn::Sub(a, b); }
HWY_INLINE vector_f part_mul(vector_f a, vector_f b) { return hn::Mul(a, b); }
HWY_INLINE vector_i part_add(vector_i a, vector_i b) { return hn::Add(a, b); }
HWY_INLINE vector_i part_mul(vector_i a, vector_i b) { return hn::Mul(a, b); }
HWY_INLINE vector_u part_and(vector_u a, std::uint32_t mask) { return hn::And(a, hn::Set(tag_u{}, mask)); }
HWY_INLINE vector_u part_xor(vector_u a, std::uint32_t mask) { return hn::Xor(a, hn::Set(tag_u{}, mask)); }
HWY_INLINE vector_u part_or(vector_u a, vector_u b) { return hn::Or(a, b); }
template <int N>
HWY_INLINE vector_u part_right(vector_u a) {
  return hn::ShiftRight<N>(a);
}
template <int N>
HWY_INLINE vector_u part_left(vector_u a) {
  return hn::ShiftLeft<N>(a);
}
template <int N>
HWY_INLINE vector_i part_right(vector_i a) {
  return hn::ShiftRight<N>(a);
}
HWY_INLINE vector_u part_add(vector_u a, std::uint32_t b) { return hn::Add(a, hn::Set(tag_u{}, b)); }
HWY_INLINE vector_f part_larger(vector_f a, vector_f b) { return hn::Max(a, b); }
HWY_INLINE vector_f part_smaller(vector_f a, vector_f b) { return hn::Min(a, b); }
HWY_INLINE vector_i part_larger(vector_i a, vector_i b) { return hn::Max(a, b); }
HWY_INLINE std::int32_t part_largest(vector_i a) { return hn::GetLane(hn::MaxOfLanes(tag_i{}, a)); }
HWY_INLINE vector_f part_div(vector_f a, vector_f b) { return hn::Div(a, b); }
HWY_INLINE vector_i part_nearest(vector_f a) { return hn::NearestInt(a); }
HWY_INLINE void part_store(vector_i x, std::int32_t* p) { hn::StoreU(x, tag_i{}, p); }
HWY_INLINE vector_f part_load_half(float16 const* p) {
  hn::Rebind<hwy::float16_t, tag_f> const half;
  return hn::PromoteTo(tag_f{}, hn::LoadU(half, reinterpret_cast<hwy::float16_t const*>(p)));
}
HWY_INLINE vector_f part_load_half(bfloat16 const* p) {
  hn::Rebind<std::uint16_t, tag_f> const half;
  auto const wide = hn::PromoteTo(tag_u{}, hn::LoadU(half, reinterpret_cast<std::uint16_t const*>(p)));
  return hn::BitCast(tag_f{}, hn::ShiftLeft<16>(wide));
}
HWY_INLINE vector_f part_load_byte(std::int8_t const* p) {
  hn::Rebind<std::int8_t, tag_f> const bytes;
  return hn::ConvertTo(tag_f{}, hn::PromoteTo(tag_i{}, hn::LoadU(bytes, p)));
}
HWY_INLINE vector_u part_as_words(vector_f a) { return hn::BitCast(tag_u{}, a); }
HWY_INLINE vector_f part_convert(vector_i a) { return hn::ConvertTo(tag_f{}, a); }
HWY_INLINE vector_i part_to_int(vector_f a) { return hn::ConvertTo(tag_i{}, a); }
HWY_INLINE vector_i part_as_int(vector_u a) { return hn::BitCast(tag_i{}, a); }
HWY_INLINE vector_f part_as_float(vector_u a) { return hn::BitCast(tag_f{}, a); }

#endif

inline constexpr std::size_t parts = lanes / width;

/// Whether multiply_add rounds once.
inline constexpr bool fused_multiply_add = HWY_NATIVE_FMA && !HWY_HAVE_SCALABLE;

/// `lanes` values of one kind, row r of a panel in lane r.
template <class V>
struct panel_lanes {
  V part[parts];
  // Written out, because an implicit one lacks the instruction set that Highway's vectors have on ARM.
  HWY_INLINE panel_lanes() {}
};
using floats = panel_lanes<vector_f>;
using words = panel_lanes<vector_u>;
using integers = panel_lanes<vector_i>;

#define SLIMTRIM_EACH_PART(result, expression)                           \
  result out;                                                            \
  SLIMTRIM_UNROLL for (std::size_t i = 0; i < parts; ++i) out.part[i] = expression; \
  return out

HWY_INLINE floats zero_floats() { SLIMTRIM_EACH_PART(floats, part_zero()); }
HWY_INLINE floats broadcast(float x) { SLIMTRIM_EACH_PART(floats, part_set(x)); }
HWY_INLINE integers broadcast(std::int32_t x) { SLIMTRIM_EACH_PART(integers, part_set(x)); }
HWY_INLINE floats load(float const* p) { SLIMTRIM_EACH_PART(floats, part_load(p + i * width)); }
HWY_INLINE floats load(float16 const* p) { SLIMTRIM_EACH_PART(floats, part_load_half(p + i * width)); }
HWY_INLINE floats load(bfloat16 const* p) { SLIMTRIM_EACH_PART(floats, part_load_half(p + i * width)); }
HWY_INLINE floats load(std::int8_t const* p) { SLIMTRIM_EACH_PART(floats, part_load_byte(p + i * width)); }
HWY_INLINE words load(std::uint32_t const* p) { SLIMTRIM_EACH_PART(words, part_load(p + i * width)); }
HWY_INLINE void store(floats const& x, float* p) {
  SLIMTRIM_UNROLL for (std::size_t i = 0; i < parts; ++i) part_store(x.part[i], p + i * width);
}
HWY_INLINE floats multiply_add(floats const& a, floats const& b, floats const& c) {
  SLIMTRIM_EACH_PART(floats, part_fma(a.part[i], b.part[i], c.part[i]));
}
HWY_INLINE floats add(floats const& a, floats const& b) { SLIMTRIM_EACH_PART(floats, part_add(a.part[i], b.part[i])); }
HWY_INLINE floats larger(floats const& a, floats const& b) {
  SLIMTRIM_EACH_PART(floats, part_larger(a.part[i], b.part[i]));
}
HWY_INLINE floats smaller(floats const& a, floats const& b) {
  SLIMTRIM_EACH_PART(floats, part_smaller(a.part[i], b.part[i]));
}
HWY_INLINE integers larger(integers const& a, integers const& b) {
  SLIMTRIM_EACH_PART(integers, part_larger(a.part[i], b.part[i]));
}
/// The largest of all lanes.
HWY_INLINE std::int32_t largest_lane(integers const& a) {
  vector_i most = a.part[0];
  SLIMTRIM_UNROLL for (std::size_t i = 1; i < parts; ++i) most = part_larger(most, a.part[i]);
  return part_largest(most);
}
HWY_INLINE floats divide(floats const& a, floats const& b) { SLIMTRIM_EACH_PART(floats, part_div(a.part[i], b.part[i])); }
/// The nearest whole numbers, ties to even, of numbers far below 2^22.
HWY_INLINE integers nearest(floats const& a) { SLIMTRIM_EACH_PART(integers, part_nearest(a.part[i])); }
HWY_INLINE void store(integers const& x, std::int32_t* p) {
  SLIMTRIM_UNROLL for (std::size_t i = 0; i < parts; ++i) part_store(x.part[i], p + i * width);
}
/// Numbers in 0 .. 15 as nibbles, two a byte, the first lower.
HWY_INLINE void store_nibbles(integers const& x, std::uint8_t* p) {
#if HWY_HAVE_SCALABLE || HWY_TARGET == HWY_SCALAR
  std::int32_t all[lanes];
  store(x, all);
  for (int i = 0; i < lanes; i += 2) p[i / 2] = static_cast<std::uint8_t>(all[i] | all[i + 1] << 4);
#else
  hn::Repartition<std::uint64_t, tag_i> const pairs;
  hn::Rebind<std::uint8_t, decltype(pairs)> const bytes;
  SLIMTRIM_UNROLL for (std::size_t i = 0; i < parts; ++i) {
    auto const both = hn::BitCast(pairs, x.part[i]);
    hn::StoreU(hn::TruncateTo(bytes, hn::Or(both, hn::ShiftRight<28>(both))), bytes, p + i * width / 2);
  }
#endif
}
HWY_INLINE words add(words const& a, std::uint32_t b) { SLIMTRIM_EACH_PART(words, part_add(a.part[i], b)); }
HWY_INLINE integers add(integers const& a, integers const& b) {
  SLIMTRIM_EACH_PART(integers, part_add(a.part[i], b.part[i]));
}
HWY_INLINE floats subtract(floats const& a, floats const& b) {
  SLIMTRIM_EACH_PART(floats, part_sub(a.part[i], b.part[i]));
}
HWY_INLINE floats multiply(floats const& a, floats const& b) {
  SLIMTRIM_EACH_PART(floats, part_mul(a.part[i], b.part[i]));
}
HWY_INLINE integers multiply(integers const& a, integers const& b) {
  SLIMTRIM_EACH_PART(integers, part_mul(a.part[i], b.part[i]));
}
HWY_INLINE words mask(words const& a, std::uint32_t bits) { SLIMTRIM_EACH_PART(words, part_and(a.part[i], bits)); }
HWY_INLINE words flip(words const& a, std::uint32_t bits) { SLIMTRIM_EACH_PART(words, part_xor(a.part[i], bits)); }
HWY_INLINE words either(words const& a, words const& b) { SLIMTRIM_EACH_PART(words, part_or(a.part[i], b.part[i])); }
template <int N>
HWY_INLINE words right(words const& a) {
  SLIMTRIM_EACH_PART(words, part_right<N>(a.part[i]));
}
template <int N>
HWY_INLINE words left(words const& a) {
  SLIMTRIM_EACH_PART(words, part_left<N>(a.part[i]));
}
template <int N>
HWY_INLINE integers right(integers const& a) {
  SLIMTRIM_EACH_PART(integers, part_right<N>(a.part[i]));
}
HWY_INLINE floats convert(integers const& a) { SLIMTRIM_EACH_PART(floats, part_convert(a.part[i])); }
HWY_INLINE integers to_integers(floats const& a) { SLIMTRIM_EACH_PART(integers, part_to_int(a.part[i])); }
HWY_INLINE integers as_integers(words const& a) { SLIMTRIM_EACH_PART(integers, part_as_int(a.part[i])); }
HWY_INLINE words as_words(floats const& a) { SLIMTRIM_EACH_PART(words, part_as_words(a.part[i])); }
HWY_INLINE floats as_floats(words const& a) { SLIMTRIM_EACH_PART(floats, part_as_float(a.part[i])); }

#undef SLIMTRIM_EACH_PART

/// How far ahead weights are asked for, in bytes. One stream at a time and this far ahead reads memory at nearly the rate of
/// a plain read; what the processor guesses by itself loses a third where panels are short.
inline constexpr index_t bytes_ahead = 8192;

/// Asks for `bytes` bytes from p on. The address need not be valid.
HWY_INLINE void fetch_ahead(std::byte const* p, int bytes) {
  SLIMTRIM_UNROLL for (int i = 0; i < bytes; i += 64) hwy::Prefetch(p + i);
}

/// The scales (or, `lanes` elements on, the zero points) of one head of a panel.
HWY_INLINE floats load_head(panel_view const& view, std::byte const* head, index_t first = 0) {
  if (view.scales == scale_kind::bfloat16s) return load(reinterpret_cast<bfloat16 const*>(head) + first);
  if (view.scales == scale_kind::float16s) return load(reinterpret_cast<float16 const*>(head) + first);
  return load(reinterpret_cast<float const*>(head) + first);
}
HWY_INLINE floats load_zeros(panel_view const& view, std::byte const* head) {
  return view.has_zeros ? load_head(view, head, lanes) : broadcast(view.middle);
}

/// Walks a panel from front to back: `head` of the present group, `words` of the present block.
struct panel_walk {
  std::byte const* words;
  std::byte const* head = nullptr;
  index_t place = 0;

  HWY_INLINE void enter_group(index_t head_bytes, index_t groups_a_stretch) {
    if (place == 0) {
      head = words;
      words += groups_a_stretch * head_bytes;
    } else {
      head += head_bytes;
    }
    if (++place == groups_a_stretch) place = 0;
  }
};

/// Lanes 0 .. rows - 1 of x to out, `stride` apart.
HWY_INLINE void store_some(floats const& x, float* out, index_t stride, index_t rows) {
  if (stride == 1 && rows >= lanes) {
    store(x, out);
    return;
  }
  float all[lanes];
  store(x, all);
  for (index_t r = 0; r < rows && r < lanes; ++r) out[r * stride] = all[r];
}

}  // namespace HWY_NAMESPACE
}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
HWY_AFTER_NAMESPACE();

#endif  // toggle
