// GPTQ of one host matrix on the device, for the accelerator; apart from it, because its kernels take long to compile.
#pragma once

#include <slimtrim/cuda/gptq.cuh>

#include <optional>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// slimtrim::gptq on the device with operands and result in host memory; nothing where the host is to do it: fewer than
/// 128 columns, one scale for a whole matrix, coordinate descent. W: [n, c], hessian and judge: [c, c] with contiguous
/// rows, judge or none. Waits for the device. Errors of cuda::gptq.
[[nodiscard]] inline std::optional<gptq_result> gptq_of_host_matrix(context& on, matrix_view<float const> W,
                                                                    matrix_view<float const> hessian,
                                                                    gptq_options const& options,
                                                                    matrix_view<float const> judge) {
  index_t const n = W.extent(0), c = W.extent(1);
  bool const judged = judge.data != nullptr && judge.data != hessian.data;
  if (c < 128 || n == 0 || options.groups.kind == group_kind::tensor || options.descent_passes > 0) return std::nullopt;
  if (!W.contiguous() || !hessian.contiguous() || (judged && !judge.contiguous())) return std::nullopt;
  expects(hessian.extent(0) == c && hessian.extent(1) == c, "gptq",
          "Hessian: expected as many rows and columns as the weight has columns");
  auto const w = on.scratch_for<float>(n * c), h = on.scratch_for<float>(c * c),
             j = on.scratch_for<float>(judged ? c * c : 0);
  copy_to_device(on.stream(), W.data, n * c, w.data());
  copy_to_device(on.stream(), hessian.data, c * c, h.data());
  if (judged) copy_to_device(on.stream(), judge.data, c * c, j.data());
  std::vector<gptq_problem<float>> problems(1);
  problems[0].weights.push_back(device_matrix<float const>(w.data(), n, c));
  problems[0].hessian = device_matrix<float const>(h.data(), c, c);
  if (judged) problems[0].judge = device_matrix<float const>(j.data(), c, c);
  return std::move(cuda::gptq<float>(on, problems, options)[0][0]);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
