// The backend of the program, for the engine's own files.
#pragma once

#include "device.hpp"
#include "engine.hpp"

#include <slimtrim/model/accelerator.hpp>

#if SLIMTRIM_PROGRAM_SIMD
#include <slimtrim/simd/backend.hpp>
#else
#include <slimtrim/backend/eigen.hpp>
#endif

namespace cli {

#if SLIMTRIM_PROGRAM_SIMD
using host_backend = slimtrim::simd_backend;
/// The kernels of the best instruction set that this build and this machine have.
[[nodiscard]] slimtrim::simd::kernel_table const& best_kernels();
#else
using host_backend = slimtrim::eigen_backend;
#endif

/// The host's, which hands over to a device where there is one.
using program_backend = slimtrim::accelerated<host_backend>;

struct engine::state {
  std::unique_ptr<device> on_device;  ///< null: everything runs on the host
  program_backend backend;
};

}  // namespace cli
