// Kernels as nvcc compiled them to PTX, carried out on the host.
//
// With SLIMTRIM_PTX in the environment (files or folders of PTX, colons between), the emulated launch runs what the CUDA compiler made
// of a kernel in place of the kernel's source: the real intrinsics, inline assembly and device branches, 32 lanes in step. What
// compute-sanitizer looks for on a device is an exception here: accesses outside device memory, or not aligned; races in shared and
// device memory, those of asynchronous copies and products included; barriers and exchanges that lanes miss; a kernel that begins
// early and touches what is not yet there. With SLIMTRIM_PTX_COUNTS it says at the end, kernel by kernel, what warps executed, and what
// their accesses took against the least. Nothing here knows time.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <stdexcept>

namespace ptx {

// What a kernel did that a device forbids, or that this cannot carry out.
struct violation : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct argument {
  void const* value;
  std::size_t bytes, alignment;
};

// Whether SLIMTRIM_PTX is set.
bool available();
// The kernel that SLIMTRIM_PTX has of the function at `source`.
void run(void const* source, dim3 blocks, unsigned threads, std::size_t shared_bytes, bool early, argument const* arguments, std::size_t count);
struct kernel;
void run(kernel const& code, dim3 blocks, unsigned threads, std::size_t shared_bytes, bool early, argument const* arguments, std::size_t count);

}  // namespace ptx
