// Tensor cores and asynchronous copies of sm_80 and newer: mma.sync m16n8k16 and cp.async.
#pragma once

#include <slimtrim/cuda/words.hpp>

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// d += A B for a 16 x 16 tile A and a 16 x 8 tile B, one warp, float sums; fragments as fragment.hpp describes.
template <half_precision T>
__device__ __forceinline__ void multiply_tile(float (&d)[4], std::uint32_t const (&a)[4], std::uint32_t const (&b)[2]) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

/// d += A B for a 16 x 32 tile A of which 2 of every 4 columns are kept, and a 32 x 8 tile B, one warp, float sums;
/// fragments as sparse_tile.hpp describes. `places` of the lanes 2 Selector and 2 Selector + 1 of every four say which
/// columns those are, ascending.
template <half_precision T, int Selector>
__device__ __forceinline__ void multiply_sparse_tile(float (&d)[4], std::uint32_t const (&a)[4],
                                                     std::uint32_t const (&b)[4], std::uint32_t places) {
  static_assert(Selector == 0 || Selector == 1);
  if constexpr (std::is_same_v<T, bfloat16>) {
    asm volatile(
        "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, %13;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(places),
          "n"(Selector));
  } else {
    asm volatile(
        "mma.sp::ordered_metadata.sync.aligned.m16n8k32.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
        "{%8, %9, %10, %11}, {%0, %1, %2, %3}, %12, %13;"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(b[2]), "r"(b[3]), "r"(places),
          "n"(Selector));
  }
}

/// a - b for two pairs, each element rounded to T.
template <half_precision T>
[[nodiscard]] __device__ __forceinline__ std::uint32_t subtract_pairs(std::uint32_t a, std::uint32_t b) {
  std::uint32_t d;
  if constexpr (std::is_same_v<T, bfloat16>) {
    // sm_80 has no bf16 subtraction; a * 1 + (-b) is the same and as fast.
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(0x3f803f80U), "r"(b ^ 0x80008000U));
  } else {
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  }
  return d;
}

/// a b for two pairs, each element rounded to T once.
template <half_precision T>
[[nodiscard]] __device__ __forceinline__ std::uint32_t multiply_pairs(std::uint32_t a, std::uint32_t b) {
  std::uint32_t d;
  if constexpr (std::is_same_v<T, bfloat16>) {
    // sm_80 has no bf16 multiplication; a * b + (-0) is the same and as fast.
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(0x80008000U));
  } else {
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  }
  return d;
}

/// The low or the `upper` half of a word, twice.
[[nodiscard]] __device__ __forceinline__ std::uint32_t doubled(std::uint32_t pair, bool upper) {
  return __byte_perm(pair, 0, upper ? 0x3232 : 0x1010);
}

/// Two floats rounded to T, to nearest even, the first in the low half.
template <half_precision T>
[[nodiscard]] __device__ __forceinline__ std::uint32_t round_pair(float low, float high) {
  std::uint32_t d;
  if constexpr (std::is_same_v<T, bfloat16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
  }
  return d;
}

/// The value of a float16 from its bits, exact.
[[nodiscard]] __device__ __forceinline__ float widen_float16(std::uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

/// The low or the `upper` element of a pair as a float, exact.
template <half_precision T>
[[nodiscard]] __device__ __forceinline__ float widen_pair(std::uint32_t pair, bool upper) {
  if constexpr (std::is_same_v<T, bfloat16>)
    return bits_as<float>(upper ? pair & 0xffff0000U : pair << 16);
  else
    return widen_float16(static_cast<std::uint16_t>(upper ? pair >> 16 : pair & 0xffffU));
}

/// Starts the copy of 16 bytes to shared memory; where not `valid`, zeros are written and `from` is not read.
__device__ __forceinline__ void copy_async(void* to_shared, void const* from, bool valid = true) {
  auto const address = static_cast<std::uint32_t>(__cvta_generic_to_shared(to_shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
/// Closes a group of copies.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `Pending` of this thread's groups are under way.
template <int Pending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}


/// Four 8 x 8 matrices of 16-bit elements in shared memory, each transposed: lane l gives the address of row l % 8 of matrix
/// l / 8 (16 bytes, aligned); register i gets elements (2 t, g) and (2 t + 1, g) of matrix i, g = lane / 4, t = lane % 4.
__device__ __forceinline__ void load_transposed(std::uint32_t (&d)[4], void const* row_in_shared) {
  auto const address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row_in_shared));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(address)
               : "memory");
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
