// The part of the program's CUDA device that takes longest to compile.

#include "device_slim.hpp"

#include <slimtrim/cuda/model/accelerated_awq.cuh>
#include <slimtrim/cuda/model/accelerated_gptq.cuh>
#include <slimtrim/cuda/model/accelerated_sparsegpt.cuh>
#include <slimtrim/cuda/model/slimming_functions.cuh>

namespace cli {

slimtrim::cuda::slimming_functions slimming_on_device() {
  return {slimtrim::cuda::gptq_of_host_matrix, slimtrim::cuda::awq_of_host_matrix,
          slimtrim::cuda::search_awq_scales_of_host, slimtrim::cuda::sparsegpt_of_host_matrix};
}

}  // namespace cli
