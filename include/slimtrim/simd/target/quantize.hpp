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
  for (index_t k = 0; k < count; k += lanes)
    largest = larger(largest, as_integers(mask(as_words(load(w + k)), 0x7fffffffU)));
  std::int32_t all[lanes], most = 0;
  store(largest, all);
  for (std::int32_t const each : all) most = each > most ? each : most;
  return static_cast<std::uint32_t>(most);
}

/// Eight codes a word of 32 weights over `scale`: round(clamp(w / scale, -8, 7)) + 8, ties to even.
template <class T>
HWY_INLINE void encode_block(T const* w, floats const& scale, std::uint32_t* out) {
  auto* const bytes = reinterpret_cast<std::uint8_t*>(out);
  SLIMTRIM_UNROLL for (int k = 0; k < static_cast<int>(block_columns); k += lanes) {
    floats const bounded = smaller(larger(divide(load(w + k), scale), broadcast(-8.0F)), broadcast(7.0F));
    store_nibbles(add(nearest(bounded), broadcast(std::int32_t{8})), bytes + k / 2);
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
    floats const scale = broadcast(*scales);
    for (index_t k = first; k < last; k += block_columns) encode_block(row + k, scale, out + k / 8);
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
