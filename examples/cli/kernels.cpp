// The vector kernels of the machine that the program runs on: those of the compiler's flags when they name that machine,
// and in a portable build the best of several instruction sets.

#if SLIMTRIM_PROGRAM_SIMD

// Before any other header that includes Highway.
#include <slimtrim/simd/runtime_kernels.hpp>

#include "engine_backend.hpp"

namespace cli {

slimtrim::simd::kernel_table const& best_kernels() { return slimtrim::simd::runtime_kernels(); }

}  // namespace cli

#endif
