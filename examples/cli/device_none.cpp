// A program without CUDA.

#include "device.hpp"

#include <slimtrim/core/error.hpp>

namespace cli {

std::unique_ptr<device> open_cuda_device() {
  throw slimtrim::usage_error("--device: expected cpu (this build has no CUDA), found 'cuda'");
}

}  // namespace cli
