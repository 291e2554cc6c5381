// All kernels of one instruction set behind one table.

#if defined(SLIMTRIM_SIMD_TARGET_KERNELS_TOGGLE) == defined(HWY_TARGET_TOGGLE)
#ifdef SLIMTRIM_SIMD_TARGET_KERNELS_TOGGLE
#undef SLIMTRIM_SIMD_TARGET_KERNELS_TOGGLE
#else
#define SLIMTRIM_SIMD_TARGET_KERNELS_TOGGLE
#endif

#include <slimtrim/simd/target/attend.hpp>
#include <slimtrim/simd/target/dense.hpp>
#include <slimtrim/simd/target/exact.hpp>
#include <slimtrim/simd/target/int8.hpp>
#include <slimtrim/simd/target/quantize.hpp>
#include <slimtrim/simd/target/round.hpp>
#include <slimtrim/simd/target/rows.hpp>
#include <slimtrim/simd/target/select.hpp>
#include <slimtrim/simd/target/tile.hpp>

HWY_BEFORE_NAMESPACE();
namespace slimtrim {
inline namespace v0 {
namespace simd {
namespace HWY_NAMESPACE {

/// The kernels compiled for HWY_TARGET.
inline kernel_table const* kernels() {
  // Without the "N_" of Highway's namespaces.
  static constexpr kernel_table table{.name = &HWY_STR(HWY_NAMESPACE)[2],
                                      .lanes = lanes,
                                      .exact_few = exact_few,
                                      .int8 = int8_product,
                                      .expand = expand,
                                      .multiply_tile = multiply_tile,
                                      .dense_few = dense_few,
                                      .cosine_sums = cosine_sums,
                                      .round_row = round_row,
                                      .attend = attend,
                                      .group_magnitudes = group_magnitudes,
                                      .encode4 = encode4,
                                      .keep_in_groups = keep_in_groups,
                                      .most_of_group = most_of_group,
                                      .pair_period = 2 * row_width,
                                      .byte_offset = signed_codes<element_kind::codes8> ? 128 : 0,
                                      .streamed_tokens = exact_streamed_tokens};
  return &table;
}

}  // namespace HWY_NAMESPACE
}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
HWY_AFTER_NAMESPACE();

#endif  // toggle
