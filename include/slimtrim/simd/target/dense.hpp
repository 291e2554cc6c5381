// Row-major dense weights times a few tokens, straight from where they are mapped: rows are streamed, and each is
// summed across its lanes at the end.

#if defined(SLIMTRIM_SIMD_TARGET_DENSE_TOGGLE) == defined(HWY_TARGET_TOGGLE)
#ifdef SLIMTRIM_SIMD_TARGET_DENSE_TOGGLE
#undef SLIMTRIM_SIMD_TARGET_DENSE_TOGGLE
#else
#define SLIMTRIM_SIMD_TARGET_DENSE_TOGGLE
#endif

#include <slimtrim/simd/target/lanes.hpp>

#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace slimtrim {
inline namespace v0 {
namespace simd {
namespace HWY_NAMESPACE {

#if HWY_HAVE_SCALABLE
inline constexpr int row_width = 1;
using row_vector = vector_f;
HWY_INLINE row_vector row_zero() { return {0.0F}; }
HWY_INLINE row_vector row_load(float const* p) { return {*p}; }
HWY_INLINE row_vector row_load_half(std::uint16_t const* p) { return {static_cast<float>(float16::from_bits(*p))}; }
HWY_INLINE void row_load_pairs(std::uint16_t const* p, row_vector& even, row_vector& odd) {
  even = {static_cast<float>(bfloat16::from_bits(p[0]))};
  odd = {static_cast<float>(bfloat16::from_bits(p[1]))};
}
HWY_INLINE row_vector row_fma(row_vector a, row_vector b, row_vector c) { return part_fma(a, b, c); }
HWY_INLINE row_vector row_add(row_vector a, row_vector b) { return part_add(a, b); }
HWY_INLINE float row_sum(row_vector a) { return a.value; }
#else
using row_tag = hn::ScalableTag<float>;
inline constexpr int row_width = static_cast<int>(hn::MaxLanes(row_tag{}));
using row_vector = hn::Vec<row_tag>;
HWY_INLINE row_vector row_zero() { return hn::Zero(row_tag{}); }
HWY_INLINE row_vector row_load(float const* p) { return hn::LoadU(row_tag{}, p); }
HWY_INLINE row_vector row_load_half(std::uint16_t const* p) {
  hn::Rebind<hwy::float16_t, row_tag> const half;
  return hn::PromoteTo(row_tag{}, hn::LoadU(half, reinterpret_cast<hwy::float16_t const*>(p)));
}
HWY_INLINE void row_load_pairs(std::uint16_t const* p, row_vector& even, row_vector& odd) {
  hn::RebindToUnsigned<row_tag> const whole;
  auto const pairs = hn::LoadU(whole, reinterpret_cast<std::uint32_t const*>(p));
  even = hn::BitCast(row_tag{}, hn::ShiftLeft<16>(pairs));
  odd = hn::BitCast(row_tag{}, hn::And(pairs, hn::Set(whole, 0xffff0000U)));
}
HWY_INLINE row_vector row_fma(row_vector a, row_vector b, row_vector c) { return hn::MulAdd(a, b, c); }
HWY_INLINE row_vector row_add(row_vector a, row_vector b) { return hn::Add(a, b); }
HWY_INLINE float row_sum(row_vector a) { return hn::GetLane(hn::SumOfLanes(row_tag{}, a)); }
#endif

/// Two vectors' worth of elements of a row, in the order in which activations are laid out for this kind.
template <element_kind Kind>
HWY_INLINE void load_two(std::byte const* p, row_vector& first, row_vector& second) {
  if constexpr (Kind == element_kind::bfloat16_pairs) {
    row_load_pairs(reinterpret_cast<std::uint16_t const*>(p), first, second);
  } else if constexpr (Kind == element_kind::float16_pairs) {
    first = row_load_half(reinterpret_cast<std::uint16_t const*>(p));
    second = row_load_half(reinterpret_cast<std::uint16_t const*>(p) + row_width);
  } else {
    first = row_load(reinterpret_cast<float const*>(p));
    second = row_load(reinterpret_cast<float const*>(p) + row_width);
  }
}

template <element_kind Kind, int Rows, int Tokens>
HWY_INLINE void dense_block(std::byte const* rows, index_t row_bytes, index_t columns, float_activations const& X,
                            output_rows const& out) {
  constexpr index_t step = 2 * row_width;
  constexpr index_t element_bytes = Kind == element_kind::floats ? 4 : 2;
  row_vector sum[std::size_t{Rows}][std::size_t{Tokens}][2];
  SLIMTRIM_UNROLL for (int r = 0; r < Rows; ++r) {
    SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) sum[r][t][0] = sum[r][t][1] = row_zero();
  }
  index_t k = 0;
  for (; k + step <= columns; k += step) {
    if constexpr (Rows == 1) fetch_ahead(rows + k * element_bytes + bytes_ahead, static_cast<int>(step * element_bytes));
    row_vector first[std::size_t{Rows}], second[std::size_t{Rows}];
    SLIMTRIM_UNROLL for (int r = 0; r < Rows; ++r)
        load_two<Kind>(rows + r * row_bytes + k * element_bytes, first[r], second[r]);
    SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) {
      row_vector const a = row_load(X.values + t * X.stride + k), b = row_load(X.values + t * X.stride + k + row_width);
      SLIMTRIM_UNROLL for (int r = 0; r < Rows; ++r) {
        sum[r][t][0] = row_fma(first[r], a, sum[r][t][0]);
        sum[r][t][1] = row_fma(second[r], b, sum[r][t][1]);
      }
    }
  }
  if (k < columns) {
    // What is left is copied out, so that nothing beyond the row is read.
    for (int r = 0; r < Rows; ++r) {
      alignas(64) std::byte tail[static_cast<std::size_t>(step * element_bytes)] = {};
      std::memcpy(tail, rows + r * row_bytes + k * element_bytes, static_cast<std::size_t>((columns - k) * element_bytes));
      row_vector first, second;
      load_two<Kind>(tail, first, second);
      for (int t = 0; t < Tokens; ++t) {
        float const* const a = X.values + t * X.stride + k;
        sum[r][t][0] = row_fma(first, row_load(a), sum[r][t][0]);
        sum[r][t][1] = row_fma(second, row_load(a + row_width), sum[r][t][1]);
      }
    }
  }
  SLIMTRIM_UNROLL for (int r = 0; r < Rows; ++r) {
    SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t)
        out.data[t * out.token_stride + r * out.row_stride] = row_sum(row_add(sum[r][t][0], sum[r][t][1]));
  }
}

template <element_kind Kind, int Tokens>
HWY_NOINLINE void dense_tokens(std::byte const* rows, index_t row_bytes, index_t columns, float_activations const& X,
                               output_rows out) {
  // One row at a time is one stream of memory where rows follow one another; two share what is read of the activations.
  constexpr int together = Tokens == 1 ? 1 : 2;
  index_t r = 0;
  for (; r + together <= out.rows; r += together) {
    dense_block<Kind, together, Tokens>(rows + r * row_bytes, row_bytes, columns, X, out);
    out.data += together * out.row_stride;
  }
  for (; r < out.rows; ++r) {
    dense_block<Kind, 1, Tokens>(rows + r * row_bytes, row_bytes, columns, X, out);
    out.data += out.row_stride;
  }
}

template <element_kind Kind>
void dense_few_of(void const* rows, index_t row_stride, index_t columns, float_activations X, index_t tokens,
                  output_rows out) {
  auto const* const from = static_cast<std::byte const*>(rows);
  index_t const row_bytes = row_stride * (Kind == element_kind::floats ? 4 : 2);
  while (tokens > 0) {
    index_t const now = tokens < 3 ? tokens : 3;
    if (now == 1) dense_tokens<Kind, 1>(from, row_bytes, columns, X, out);
    if (now == 2) dense_tokens<Kind, 2>(from, row_bytes, columns, X, out);
    if (now == 3) dense_tokens<Kind, 3>(from, row_bytes, columns, X, out);
    X.values += now * X.stride;
    out.data += now * out.token_stride;
    tokens -= now;
  }
}

inline void dense_few(element_kind kind, void const* rows, index_t row_stride, index_t columns,
                      float_activations const& X, index_t tokens, output_rows out) {
  if (kind == element_kind::bfloat16_pairs)
    return dense_few_of<element_kind::bfloat16_pairs>(rows, row_stride, columns, X, tokens, out);
  if (kind == element_kind::float16_pairs)
    return dense_few_of<element_kind::float16_pairs>(rows, row_stride, columns, X, tokens, out);
  if (kind == element_kind::floats)
    return dense_few_of<element_kind::floats>(rows, row_stride, columns, X, tokens, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
HWY_AFTER_NAMESPACE();

#endif  // toggle
