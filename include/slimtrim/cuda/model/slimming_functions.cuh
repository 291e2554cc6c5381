// What a device does to host matrices, as functions: they take long to compile, so they are a caller's to bring.
#pragma once

#include <slimtrim/cuda/context.cuh>
#include <slimtrim/slim/quantize/awq.hpp>
#include <slimtrim/slim/quantize/gptq.hpp>
#include <slimtrim/slim/sparse/sparsegpt.hpp>

#include <optional>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// gptq_of_host_matrix, awq_of_host_matrix, search_awq_scales_of_host and sparsegpt_of_host_matrix, or null: then the host does it,
/// as it does where they return nothing.
struct slimming_functions {
  std::optional<gptq_result> (*gptq)(context&, matrix_view<float const> W, matrix_view<float const> hessian,
                                     gptq_options const&, matrix_view<float const> judge) = nullptr;
  std::optional<quantized_matrix> (*awq)(context&, matrix_view<float const> W, matrix_view<float const> hessian,
                                         std::vector<float> const& scales, awq_options const&,
                                         matrix_view<float const> judge, index_t* rows_kept) = nullptr;
  std::optional<awq_scales> (*search_awq_scales)(context&, std::vector<slimtrim::awq_member<float>> const&,
                                                 awq_options const&, std::vector<index_t> const& tied) = nullptr;
  std::optional<sparsegpt_result> (*sparsegpt)(context&, matrix_view<float const> W, matrix_view<float const> hessian,
                                               sparsegpt_options const&) = nullptr;
};

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
