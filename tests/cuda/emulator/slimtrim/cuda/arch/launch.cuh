// The host's stand-in for include/slimtrim/cuda/arch/launch.cuh.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/index.hpp>

#include <cuda_runtime.h>

#include "cuda/ptx/run.hpp"

#include <array>
#include <cstddef>
#include <string>
#include <tuple>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

inline void check(cudaError_t status, char const* where) {
  if (status == cudaSuccess) return;
  throw system_failure(std::string(where) + ": " + cudaGetErrorName(status) + ": " + cudaGetErrorString(status));
}

struct launch_shape {
  dim3 blocks{1};
  unsigned threads = 256;
  std::size_t shared_bytes = 0;
  bool early = false;
};

template <class... Parameters, class... Arguments>
void launch(cudaStream_t, launch_shape const& shape, void (*kernel)(Parameters...), Arguments const&... arguments) {
  std::tuple<Parameters...> values(static_cast<Parameters>(arguments)...);
  if (ptx::available()) {
    std::array<ptx::argument, sizeof...(Parameters)> const given = std::apply(
        [](auto const&... value) {
          return std::array<ptx::argument, sizeof...(Parameters)>{ptx::argument{&value, sizeof value, alignof(decltype(value))}...};
        },
        values);
    ptx::run(reinterpret_cast<void const*>(kernel), shape.blocks, shape.threads, shape.shared_bytes, shape.early, given.data(), given.size());
    return;
  }
  struct call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...>* values;
  } one{kernel, &values};
  emulator::run_grid(
      shape.blocks, shape.threads, shape.shared_bytes,
      [](void* at) {
        auto const& c = *static_cast<call*>(at);
        std::apply(c.kernel, *c.values);
      },
      &one, shape.early);
}

[[nodiscard]] inline unsigned blocks_for(index_t count) {
  expects(count >= 0 && count <= 0x7fffffff, "cuda::launch", "number of blocks: expected 0 .. 2^31 - 1");
  return static_cast<unsigned>(count);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
