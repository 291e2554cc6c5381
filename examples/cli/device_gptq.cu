// The part of the program's CUDA device that takes longest to compile.

#include "device_gptq.hpp"

#include <slimtrim/cuda/model/accelerated_gptq.cuh>

namespace cli {

std::optional<slimtrim::gptq_result> gptq_of_host_matrix(slimtrim::cuda::context& on,
                                                         slimtrim::matrix_view<float const> W,
                                                         slimtrim::matrix_view<float const> hessian,
                                                         slimtrim::gptq_options const& options,
                                                         slimtrim::matrix_view<float const> judge) {
  return slimtrim::cuda::gptq_of_host_matrix(on, W, hessian, options, judge);
}

}  // namespace cli
