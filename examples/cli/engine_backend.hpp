// The backend of the program, for the engine's own files.
#pragma once

#include "engine.hpp"

#if SLIMTRIM_PROGRAM_SIMD
#include <slimtrim/simd/backend.hpp>
#else
#include <slimtrim/backend/eigen.hpp>
#endif

namespace cli {

#if SLIMTRIM_PROGRAM_SIMD
using program_backend = slimtrim::simd_backend;
#else
using program_backend = slimtrim::eigen_backend;
#endif

struct engine::state {
  program_backend backend;
};

}  // namespace cli
