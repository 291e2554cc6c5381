// GPTQ for the device, compiled by itself.
#pragma once

#include <slimtrim/slim/quantize/gptq.hpp>

#include <optional>

namespace slimtrim {
inline namespace v0 {
namespace cuda {
class context;
}
}  // namespace v0
}  // namespace slimtrim

namespace cli {

[[nodiscard]] std::optional<slimtrim::gptq_result> gptq_of_host_matrix(slimtrim::cuda::context& on,
                                                                       slimtrim::matrix_view<float const> W,
                                                                       slimtrim::matrix_view<float const> hessian,
                                                                       slimtrim::gptq_options const& options,
                                                                       slimtrim::matrix_view<float const> judge);

}  // namespace cli
