// What every CUDA GPU since sm_80 offers beyond plain C++: barriers, shuffles, dynamic shared memory, wide loads.
//
// Kernels use intrinsics and PTX only through the files of this folder. So a test may put others in their place and run
// the same kernels on the host, thread by thread.
#pragma once

#include <slimtrim/cuda/words.hpp>

#include <cuda_runtime.h>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

__device__ __forceinline__ void sync_block() { __syncthreads(); }
__device__ __forceinline__ void sync_warp() { __syncwarp(); }

/// The value of lane `lane ^ mask`. All 32 lanes take part.
template <class T>
[[nodiscard]] __device__ __forceinline__ T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffU, value, mask);
}
/// The value of lane `from`. All 32 lanes take part.
template <class T>
[[nodiscard]] __device__ __forceinline__ T shuffle(T value, int from) {
  return __shfl_sync(0xffffffffU, value, from);
}
/// Ends once the work in front of this kernel on its stream has ended and what it wrote can be read; at once where the
/// kernel was not launched early. Every thread of a kernel that may be launched early calls it.
__device__ __forceinline__ void wait_for_earlier_work() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// Lets the next kernel on the stream begin, where it was launched early and this one's blocks have all begun.
__device__ __forceinline__ void let_later_work_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// One bit a lane. All 32 lanes take part.
[[nodiscard]] __device__ __forceinline__ std::uint32_t ballot(bool mine) { return __ballot_sync(0xffffffffU, mine); }
[[nodiscard]] __device__ __forceinline__ int count_bits(std::uint32_t bits) { return __popc(bits); }

/// (a & b) | c, one instruction.
[[nodiscard]] __device__ __forceinline__ std::uint32_t and_or(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  std::uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

/// Has `value` made here and once, where the compiler would rather have two ways of making it and twice what follows.
__device__ __forceinline__ void settle(float& value) { asm volatile("" : "+f"(value)); }

/// The block's dynamic shared memory, aligned to 1024 bytes where a kernel asks for that much.
[[nodiscard]] __device__ __forceinline__ unsigned char* shared_memory() {
  extern __shared__ __align__(1024) unsigned char slimtrim_shared_bytes[];
  return slimtrim_shared_bytes;
}

/// Bytes that are read once: they pass L1 by, and L2 fetches their neighbours too.
[[nodiscard]] __device__ __forceinline__ words4 load_once(words4 const* from) {
  words4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
               : "l"(from));
  return v;
}
[[nodiscard]] __device__ __forceinline__ words2 load_once(words2 const* from) {
  words2 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v2.u32 {%0, %1}, [%2];"
               : "=r"(v.word[0]), "=r"(v.word[1])
               : "l"(from));
  return v;
}
[[nodiscard]] __device__ __forceinline__ std::uint32_t load_once(std::uint32_t const* from) {
  std::uint32_t v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.u32 %0, [%1];" : "=r"(v) : "l"(from));
  return v;
}
/// Bytes that other blocks read too.
[[nodiscard]] __device__ __forceinline__ words4 load_shared_by_blocks(words4 const* from) {
  words4 v;
  asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
               : "l"(from));
  return v;
}

[[nodiscard]] __device__ __forceinline__ std::uint32_t load_shared_by_blocks(std::uint32_t const* from) {
  std::uint32_t v;
  asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(from));
  return v;
}
[[nodiscard]] __device__ __forceinline__ std::uint16_t load_shared_by_blocks(std::uint16_t const* from) {
  std::uint16_t v;
  asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(v) : "l"(from));
  return v;
}

/// Bytes that kernels in front of this one wrote and that other blocks read too: activations, keys and values. Those kernels may
/// still run when this one begins, so it is not the read-only load above, which may be moved across wait_for_earlier_work.
[[nodiscard]] __device__ __forceinline__ words4 load_made_before(words4 const* from) {
  words4 v;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
               : "l"(from)
               : "memory");
  return v;
}

/// Weights that are asked for before wait_for_earlier_work: loads that stay where they are written, and not read-only ones,
/// which the assembler moves behind the wait.
[[nodiscard]] __device__ __forceinline__ words4 load_ahead(words4 const* from) {
  words4 v;
  asm volatile("ld.global.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
               : "l"(from)
               : "memory");
  return v;
}
[[nodiscard]] __device__ __forceinline__ words2 load_ahead(words2 const* from) {
  words2 v;
  asm volatile("ld.global.L1::no_allocate.L2::256B.v2.u32 {%0, %1}, [%2];"
               : "=r"(v.word[0]), "=r"(v.word[1])
               : "l"(from)
               : "memory");
  return v;
}
[[nodiscard]] __device__ __forceinline__ std::uint32_t load_ahead(std::uint32_t const* from) {
  std::uint32_t v;
  asm volatile("ld.global.u32 %0, [%1];" : "=r"(v) : "l"(from) : "memory");
  return v;
}
[[nodiscard]] __device__ __forceinline__ std::uint16_t load_ahead(std::uint16_t const* from) {
  std::uint16_t v;
  asm volatile("ld.global.u16 %0, [%1];" : "=h"(v) : "l"(from) : "memory");
  return v;
}

/// One store of 16 bytes to shared memory, which the compiler cuts up where it loses sight of the alignment.
__device__ __forceinline__ void store_to_shared(words4* to, words4 const& v) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(to))), "r"(v.word[0]),
               "r"(v.word[1]), "r"(v.word[2]), "r"(v.word[3])
               : "memory");
}

/// What another block wrote during this kernel, once its ticket says so: L1 is passed by.
[[nodiscard]] __device__ __forceinline__ float load_fresh(float const* from) { return __ldcg(from); }
[[nodiscard]] __device__ __forceinline__ std::int32_t load_fresh(std::int32_t const* from) { return __ldcg(from); }

/// Raises *at to at least `value` (for error words; integers only, so the result does not depend on the order).
__device__ __forceinline__ void raise_to(unsigned long long* at, unsigned long long value) { atomicMax(at, value); }

/// Lowers *at in shared memory to at most `value`.
__device__ __forceinline__ void lower_to(int* at, int value) { atomicMin(at, value); }

/// Adds one to a counter in shared memory.
__device__ __forceinline__ void count_up(int* at) { atomicAdd(at, 1); }

/// Adds to a counter in device memory (integers only, so the result does not depend on the order).
__device__ __forceinline__ void add_to(unsigned int* at, unsigned int value) { atomicAdd(at, value); }

/// A ticket: how many came before, and all that they wrote before is visible to whoever draws the last one.
[[nodiscard]] __device__ __forceinline__ unsigned int draw_ticket(unsigned int* counter) {
  __threadfence();
  unsigned int const ticket = atomicAdd(counter, 1U);
  __threadfence();
  return ticket;
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
