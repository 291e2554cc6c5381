// SparseGPT of one host matrix on the device, for the accelerator; apart from it, because its kernels take long to compile.
#pragma once

#include <slimtrim/cuda/sparsegpt.cuh>

#include <optional>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// slimtrim::sparsegpt on the device with operands and result in host memory; nothing where the host is to do it: fewer than 128
/// columns, N:M of another M than 4 and 8, blocks of other than 128 columns, one scale for a whole matrix, rows that are not side
/// by side, a Hessian of no use. W: [n, c]; hessian: [c, c]; options.given: [n, c] or none. Waits for the device. Errors of
/// cuda::sparsegpt.
[[nodiscard]] inline std::optional<sparsegpt_result> sparsegpt_of_host_matrix(context& on, matrix_view<float const> W,
                                                                              matrix_view<float const> hessian,
                                                                              sparsegpt_options const& options) {
  index_t const n = W.extent(0), c = W.extent(1);
  if (c < 128 || n == 0 || !sweeps_sparse(options, options.given != nullptr)) return std::nullopt;
  if (!W.contiguous() || !hessian.contiguous()) return std::nullopt;
  expects(hessian.extent(0) == c && hessian.extent(1) == c, "sparsegpt",
          "Hessian: expected as many rows and columns as the weight has columns");
  auto const w = on.scratch_for<float>(n * c), h = on.scratch_for<float>(c * c);
  copy_to_device(on.stream(), W.data, n * c, w.data());
  copy_to_device(on.stream(), hessian.data, c * c, h.data());
  std::vector<sparsegpt_problem<float>> problems(1);
  problems[0].weights.push_back(device_matrix<float const>(w.data(), n, c));
  problems[0].hessian = device_matrix<float const>(h.data(), c, c);
  if (options.given != nullptr) problems[0].given.push_back(options.given);
  sparsegpt_options without_mask = options;
  without_mask.given = nullptr;
  return std::move(cuda::sparsegpt<float>(on, problems, without_mask)[0][0]);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
