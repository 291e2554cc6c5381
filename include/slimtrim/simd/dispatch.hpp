// Which compiled kernels a backend uses.
//
// slimtrim is header-only, and so are the kernels: this header compiles them once, for the instruction set that the
// translation unit is compiled for (Highway's static target; with -march=native that is the machine's own), into a
// namespace named after it. A portable program that wants the best kernels of the machine it runs on includes
// runtime_kernels.hpp in one source file and passes what that returns to simd_backend. Everything outside target/ is
// ordinary C++ and reaches the kernels through a kernel_table.
#pragma once

#include <slimtrim/simd/target/kernels.hpp>

namespace slimtrim {
inline namespace v0 {
namespace simd {

/// The kernels of the instruction set for which this translation unit is compiled.
[[nodiscard]] static inline kernel_table const& static_kernels() { return *HWY_STATIC_DISPATCH(kernels)(); }

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
