// The best kernels of the machine that a program runs on, chosen at run time.
//
// Include it in exactly one source file, before any other header that includes Highway or simd/: Highway compiles
// target/ once for every instruction set that is worth having there (on x86-64 AVX2, AVX-512 and AVX-512 with VNNI,
// beside the one of the compiler's flags), and this header hands out the table of the best that the machine supports.
// Pass it on as `simd_options{.kernels = &runtime_kernels()}`. A weight is prepared for one table and used with it.
#pragma once

#if defined(HWY_HIGHWAY_INCLUDED)
#error "slimtrim/simd/runtime_kernels.hpp must come before every other header that includes Highway"
#endif

// Highway leaves this one out unless asked.
#define HWY_WANT_AVX3_DL 1

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE <slimtrim/simd/target/kernels.hpp>
#include <hwy/foreach_target.h>

#include <slimtrim/simd/target/kernels.hpp>

#include <hwy/highway.h>

namespace slimtrim {
inline namespace v0 {
namespace simd {

HWY_EXPORT(kernels);

/// The kernels of the best instruction set that both this build and this machine have. Links with libhwy.
[[nodiscard]] static inline kernel_table const& runtime_kernels() { return *HWY_DYNAMIC_DISPATCH(kernels)(); }

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
