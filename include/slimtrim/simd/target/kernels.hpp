// All kernels of one instruction set behind one table.

#if defined(SLIMTRIM_SIMD_TARGET_KERNELS_TOGGLE) == defined(HWY_TARGET_TOGGLE)
#ifdef SLIMTRIM_SIMD_TARGET_KERNELS_TOGGLE
#undef SLIMTRIM_SIMD_TARGET_KERNELS_TOGGLE
#else
#define SLIMTRIM_SIMD_TARGET_KERNELS_TOGGLE
#endif

#include <slimtrim/simd/target/dense.hpp>
#include <slimtrim/simd/target/exact.hpp>
#include <slimtrim/simd/target/int8.hpp>
#include <slimtrim/simd/target/rows.hpp>
#include <slimtrim/simd/target/tile.hpp>

HWY_BEFORE_NAMESPACE();
namespace slimtrim {
inline namespace v0 {
namespace simd {
namespace HWY_NAMESPACE {

/// The kernels compiled for HWY_TARGET.
inline kernel_table const* kernels() {
  // Without the "N_" of Highway's namespaces.
  static constexpr kernel_table table{&HWY_STR(HWY_NAMESPACE)[2], lanes, exact_few, int8_product, expand, multiply_tile,
                                      dense_few, cosine_sums, 2 * row_width};
  return &table;
}

}  // namespace HWY_NAMESPACE
}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
HWY_AFTER_NAMESPACE();

#endif  // toggle
