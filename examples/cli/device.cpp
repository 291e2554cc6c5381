// Where the program finds its device.

#include "device.hpp"

#include <slimtrim/core/error.hpp>

#include <dlfcn.h>

#include <string>

namespace cli {

std::unique_ptr<device> open_cuda_device() {
  // Beside the program, where it was installed, or on the loader's path; it stays loaded. What it throws are the library's own errors.
  void* const module = ::dlopen("slimtrim_cuda.so", RTLD_NOW | RTLD_LOCAL);
  // The number counts changes of what program and module share, so that a module of another version is not found.
  auto* const open =
      module != nullptr ? reinterpret_cast<device* (*)()>(::dlsym(module, "slimtrim_open_cuda_device_4")) : nullptr;
  if (open != nullptr) return std::unique_ptr<device>(open());
#if SLIMTRIM_PROGRAM_CUDA
  throw slimtrim::system_failure("--device cuda: " + std::string(::dlerror()));
#else
  throw slimtrim::usage_error("--device: expected cpu (this build has no CUDA), found 'cuda'");
#endif
}

}  // namespace cli
