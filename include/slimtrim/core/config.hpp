// Version, language check and the few macros of slimtrim.
//
// This is the only header that may look at __CUDACC__: `SLIMTRIM_HD` is the single thing that expands
// differently under nvcc, so a header means the same in a .cpp and in a .cu translation unit.
#pragma once

#define SLIMTRIM_VERSION_MAJOR 0
#define SLIMTRIM_VERSION_MINOR 1
#define SLIMTRIM_VERSION_PATCH 0
#define SLIMTRIM_VERSION_STRING "0.1.0"

static_assert(__cplusplus >= 202002L, "slimtrim needs C++20: compile with -std=c++20 (nvcc: also -std=c++20)");

#if defined(__CUDACC__)
#define SLIMTRIM_HD __host__ __device__
#else
#define SLIMTRIM_HD
#endif

namespace slimtrim {
inline namespace v0 {

/// The object representation of `value` read as a `To` of the same size; usable on host and device.
template <class To, class From>
[[nodiscard]] SLIMTRIM_HD constexpr To bits_as(From value) {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, value);
}

}  // namespace v0
}  // namespace slimtrim
