// Activations to 8-bit codes in blocks of 32: the largest magnitude, the codes in the order of the kernels, their sum.

#if defined(SLIMTRIM_SIMD_TARGET_ROUND_TOGGLE) == defined(HWY_TARGET_TOGGLE)
#ifdef SLIMTRIM_SIMD_TARGET_ROUND_TOGGLE
#undef SLIMTRIM_SIMD_TARGET_ROUND_TOGGLE
#else
#define SLIMTRIM_SIMD_TARGET_ROUND_TOGGLE
#endif

#include <slimtrim/simd/target/lanes.hpp>

#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace slimtrim {
inline namespace v0 {
namespace simd {
namespace HWY_NAMESPACE {

/// Below this a block counts as zero: 127 over a smaller number may leave the range of float.
inline constexpr float least_activation = 0x1.0p-100F;

#if HWY_HAVE_SCALABLE || HWY_TARGET == HWY_SCALAR

HWY_INLINE std::uint32_t largest_bits(float const* x) {
  std::uint32_t largest = 0;
  for (index_t k = 0; k < block_columns; ++k) {
    std::uint32_t const bits = bits_as<std::uint32_t>(x[k]) & 0x7fffffffU;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

HWY_INLINE std::int32_t round_codes(float const* x, float inverse, std::int8_t* codes) {
  std::int32_t sum = 0;
  for (index_t i = 0; i < block_columns; ++i) {
    // Adding 1.5 * 2^23 leaves the nearest whole number in the low bits of the mantissa, ties to even.
    std::int32_t const code = bits_as<std::int32_t>(x[i] * inverse + 12582912.0F) - 0x4b400000;
    codes[i] = static_cast<std::int8_t>(code);
    sum += code;
  }
  return sum;
}

HWY_INLINE void even_then_odd(std::int8_t* codes) {
  for (index_t word = 0; word < block_columns; word += 8) {
    std::int8_t const all[8] = {codes[word],     codes[word + 2], codes[word + 4], codes[word + 6],
                                codes[word + 1], codes[word + 3], codes[word + 5], codes[word + 7]};
    std::memcpy(codes + word, all, sizeof all);
  }
}

#else

using round_tag = hn::CappedTag<float, 16>;
inline constexpr index_t round_width = static_cast<index_t>(hn::MaxLanes(round_tag{}));

/// The largest magnitude of 32 floats as the bits of a float, which order as magnitudes do; NaN is above infinity.
HWY_INLINE std::uint32_t largest_bits(float const* x) {
  hn::RebindToSigned<round_tag> const whole;
  auto largest = hn::Zero(whole);
  SLIMTRIM_UNROLL for (index_t k = 0; k < block_columns; k += round_width) largest =
      hn::Max(largest, hn::BitCast(whole, hn::Abs(hn::LoadU(round_tag{}, x + k))));
  return static_cast<std::uint32_t>(hn::GetLane(hn::MaxOfLanes(whole, largest)));
}

/// Codes in the order of the columns; returns their sum.
HWY_INLINE std::int32_t round_codes(float const* x, float inverse, std::int8_t* codes) {
  hn::RebindToSigned<round_tag> const whole;
  hn::Rebind<std::int8_t, round_tag> const bytes;
  auto const factor = hn::Set(round_tag{}, inverse);
  auto sum = hn::Zero(whole);
  SLIMTRIM_UNROLL for (index_t k = 0; k < block_columns; k += round_width) {
    auto const code = hn::NearestInt(hn::Mul(hn::LoadU(round_tag{}, x + k), factor));
    sum = hn::Add(sum, code);
    hn::StoreU(hn::DemoteTo(bytes, code), bytes, codes + k);
  }
  return hn::GetLane(hn::SumOfLanes(whole, sum));
}

/// Puts the codes of every 8 columns into the order 0 2 4 6 1 3 5 7.
HWY_INLINE void even_then_odd(std::int8_t* codes) {
  using tag = hn::FixedTag<std::int8_t, 16>;
  alignas(16) static constexpr std::int8_t order[16] = {0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15};
  auto const places = hn::Load(tag{}, order);
  hn::StoreU(hn::TableLookupBytes(hn::LoadU(tag{}, codes), places), tag{}, codes);
  hn::StoreU(hn::TableLookupBytes(hn::LoadU(tag{}, codes + 16), places), tag{}, codes + 16);
}

#endif

inline index_t round_row(float const* x, index_t columns, element_kind weights, std::int8_t* codes, float* scales,
                         std::int32_t* sums) {
  for (index_t first = 0, block = 0; first < columns; first += block_columns, ++block) {
    float padded[block_columns] = {};
    float const* from = x + first;
    if (columns - first < block_columns) {
      std::memcpy(padded, from, static_cast<std::size_t>(columns - first) * sizeof(float));
      from = padded;
    }
    std::uint32_t const bits = largest_bits(from);
    if (bits >= 0x7f800000U) return block;
    float const largest = bits_as<float>(bits);
    bool const counts = largest >= least_activation;
    sums[block] = round_codes(from, counts ? 127.0F / largest : 0.0F, codes);
    scales[block] = counts ? largest / 127.0F : 0.0F;
    if (weights == element_kind::codes4) even_then_odd(codes);
    codes += block_columns;
  }
  return -1;
}

}  // namespace HWY_NAMESPACE
}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
HWY_AFTER_NAMESPACE();

#endif  // toggle
