// Loops over pairs of rows that read everything once: the three sums of a cosine.

#if defined(SLIMTRIM_SIMD_TARGET_ROWS_TOGGLE) == defined(HWY_TARGET_TOGGLE)
#ifdef SLIMTRIM_SIMD_TARGET_ROWS_TOGGLE
#undef SLIMTRIM_SIMD_TARGET_ROWS_TOGGLE
#else
#define SLIMTRIM_SIMD_TARGET_ROWS_TOGGLE
#endif

#include <slimtrim/simd/target/dense.hpp>

#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace slimtrim {
inline namespace v0 {
namespace simd {
namespace HWY_NAMESPACE {

/// Running sums of x y, x x and y y, two of each so that additions do not wait for one another.
struct cosine_lanes {
  row_vector xy[2], xx[2], yy[2];
  HWY_INLINE cosine_lanes() {}
};

template <element_kind Kind>
HWY_INLINE void add_to_cosine(std::byte const* x, std::byte const* y, cosine_lanes& sums) {
  row_vector a[2], b[2];
  load_two<Kind>(x, a[0], a[1]);
  load_two<Kind>(y, b[0], b[1]);
  SLIMTRIM_UNROLL for (int i = 0; i < 2; ++i) {
    sums.xy[i] = row_fma(a[i], b[i], sums.xy[i]);
    sums.xx[i] = row_fma(a[i], a[i], sums.xx[i]);
    sums.yy[i] = row_fma(b[i], b[i], sums.yy[i]);
  }
}

template <element_kind Kind>
HWY_NOINLINE void cosine_sums_of(std::byte const* x, std::byte const* y, index_t columns, double* sums) {
  constexpr index_t step = 2 * row_width, element_bytes = Kind == element_kind::floats ? 4 : 2;
  constexpr index_t panel = 4096 / step * step;
  sums[0] = sums[1] = sums[2] = 0;
  for (index_t first = 0; first < columns; first += panel) {
    index_t const last = first + panel < columns ? first + panel : columns;
    cosine_lanes part;
    SLIMTRIM_UNROLL for (int i = 0; i < 2; ++i) part.xy[i] = part.xx[i] = part.yy[i] = row_zero();
    index_t k = first;
    for (; k + step <= last; k += step) add_to_cosine<Kind>(x + k * element_bytes, y + k * element_bytes, part);
    if (k < last) {
      constexpr auto bytes = static_cast<std::size_t>(step * element_bytes);
      alignas(64) std::byte x_tail[bytes] = {}, y_tail[bytes] = {};
      std::memcpy(x_tail, x + k * element_bytes, static_cast<std::size_t>((last - k) * element_bytes));
      std::memcpy(y_tail, y + k * element_bytes, static_cast<std::size_t>((last - k) * element_bytes));
      add_to_cosine<Kind>(x_tail, y_tail, part);
    }
    sums[0] += static_cast<double>(row_sum(row_add(part.xy[0], part.xy[1])));
    sums[1] += static_cast<double>(row_sum(row_add(part.xx[0], part.xx[1])));
    sums[2] += static_cast<double>(row_sum(row_add(part.yy[0], part.yy[1])));
  }
}

inline void cosine_sums(element_kind kind, void const* x, void const* y, index_t columns, double* sums) {
  auto const *const a = static_cast<std::byte const*>(x), *const b = static_cast<std::byte const*>(y);
  if (kind == element_kind::floats) return cosine_sums_of<element_kind::floats>(a, b, columns, sums);
  if (kind == element_kind::bfloat16_pairs) return cosine_sums_of<element_kind::bfloat16_pairs>(a, b, columns, sums);
  return cosine_sums_of<element_kind::float16_pairs>(a, b, columns, sums);
}

}  // namespace HWY_NAMESPACE
}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
HWY_AFTER_NAMESPACE();

#endif  // toggle
