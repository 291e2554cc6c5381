// One way to launch a kernel, checked.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>

#include <cuda_runtime.h>

#include <cstddef>
#include <string>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Throws `system_failure` with the runtime's own words unless `status` is success. The runtime also keeps an error to
/// itself until it is asked; it is taken from there, so that what was reported here does not come up again in somebody
/// else's check.
inline void check(cudaError_t status, char const* where) {
  if (status == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());
  throw system_failure(std::string(where) + ": " + cudaGetErrorName(status) + ": " + cudaGetErrorString(status));
}

/// Blocks, threads a block, and bytes of dynamic shared memory. `early`: blocks may begin while the work in front of them on
/// the stream still runs, so the kernel calls wait_for_earlier_work before it touches what others read or write.
struct launch_shape {
  dim3 blocks{1};
  unsigned threads = 256;
  std::size_t shared_bytes = 0;
  bool early = false;
};

/// Enqueues `kernel(arguments...)`. A shape without blocks launches nothing. Throws `system_failure` where the launch is
/// refused; what goes wrong while the kernel runs is seen at the next synchronisation.
template <class... Parameters, class... Arguments>
void launch(cudaStream_t stream, launch_shape const& shape, void (*kernel)(Parameters...), Arguments const&... arguments) {
  if (shape.blocks.x == 0 || shape.blocks.y == 0 || shape.blocks.z == 0) return;
  // A kernel may use 48 KiB unasked, its static arrays and what alignment leaves between included.
  if (shape.shared_bytes > 32 * 1024)
    check(cudaFuncSetAttribute(reinterpret_cast<void const*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shape.shared_bytes)),
          "cuda::launch: shared memory");
  cudaLaunchConfig_t config{};
  config.gridDim = shape.blocks;
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  if (shape.early) {
    config.attrs = &early;
    config.numAttrs = 1;
  }
  // The status of this launch alone: the runtime's last error may be one that the caller has dealt with.
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), "cuda::launch");
}

/// Blocks for `count` pieces of work; more than a grid can hold is an error.
[[nodiscard]] inline unsigned blocks_for(index_t count) {
  expects(count >= 0 && count <= 0x7fffffff, "cuda::launch", "number of blocks: expected 0 .. 2^31 - 1");
  return static_cast<unsigned>(count);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
