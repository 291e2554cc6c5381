// Where the program finds its device.

#include "device.hpp"

#include <slimtrim/core/error.hpp>

#include <string>
#if SLIMTRIM_PROGRAM_CUDA
#include <dlfcn.h>
#endif

namespace cli {

std::unique_ptr<device> open_cuda_device() {
#if SLIMTRIM_PROGRAM_CUDA
  // Beside the program, or where it was installed; it stays loaded. What it throws are the library's own errors.
  void* const module = ::dlopen("slimtrim_cuda.so", RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) throw slimtrim::system_failure("--device cuda: " + std::string(::dlerror()));
  auto* const open = reinterpret_cast<device* (*)()>(::dlsym(module, "slimtrim_open_cuda_device"));
  if (open == nullptr) throw slimtrim::system_failure("--device cuda: " + std::string(::dlerror()));
  return std::unique_ptr<device>(open());
#else
  throw slimtrim::usage_error("--device: expected cpu (this build has no CUDA), found 'cuda'");
#endif
}

}  // namespace cli
