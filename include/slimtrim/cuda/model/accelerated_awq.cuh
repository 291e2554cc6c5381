// AWQ of host matrices on the device, for the accelerator; apart from it, because its kernels take long to compile.
#pragma once

#include <slimtrim/cuda/awq.cuh>
#include <slimtrim/cuda/awq_search.cuh>

#include <optional>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// Fewer columns are quantised sooner than moved.
inline constexpr index_t least_awq_columns = 128;

// A host matrix in device memory for as long as this lives; the same one again costs nothing.
class uploaded_matrix {
 public:
  explicit uploaded_matrix(context& on) : on_(on) {}
  [[nodiscard]] device_matrix<float const> operator()(matrix_view<float const> from) {
    if (from.data != seen_) {
      if (memory_.size() < from.size()) memory_ = device_buffer<float>(from.size());
      copy_to_device(on_.stream(), from.data, from.size(), memory_.data());
      seen_ = from.data;
    }
    return device_matrix<float const>(memory_.data(), from.extent(0), from.extent(1));
  }

 private:
  context& on_;
  device_buffer<float> memory_{};
  float const* seen_ = nullptr;
};

}  // namespace detail

/// slimtrim::search_awq_scales on the device with members in host memory, one of them on the device at a time; nothing where
/// the host is to do it: fewer than 128 columns, one scale for a whole matrix, rows that are not side by side. Products of
/// candidates' errors in TF32. Waits for the device. Errors of cuda::search_awq_scales.
[[nodiscard]] inline std::optional<awq_scales> search_awq_scales_of_host(
    context& on, std::vector<slimtrim::awq_member<float>> const& members, awq_options const& options,
    std::vector<index_t> const& tied) {
  if (members.empty() || members.front().weight.extent(1) < detail::least_awq_columns) return std::nullopt;
  index_t const c = members.front().weight.extent(1);
  for (auto const& member : members) {
    grouping const groups = member.rounding != nullptr ? member.rounding->groups : options.groups;
    if (groups.kind == group_kind::tensor || !member.weight.contiguous() || !member.hessian.contiguous()) return std::nullopt;
    expects(member.hessian.extent(0) == c && member.hessian.extent(1) == c, "search_awq_scales",
            "Hessian: expected as many rows and columns as the weights have columns");
  }
  detail::uploaded_matrix weight(on), hessian(on);
  awq_scale_search<float> search(on, c, options, tied, float_precision::tensor_float);
  auto const on_device = [&](slimtrim::awq_member<float> const& member) {
    return awq_member<float>{weight(member.weight), hessian(member.hessian), member.rounding};
  };
  for (auto const& member : members) search.look_at(on_device(member));
  for (auto const& member : members) search.measure(on_device(member));
  return search.best();
}

/// slimtrim::awq on the device with operands and result in host memory; nothing where the host is to do it: fewer than 128
/// columns, one scale for a whole matrix, groups of more than 128 columns that are to be clipped, rows that are not side by
/// side. W: [n, c]; hessian, judge: [c, c], judge or none. Waits for the device. Errors of cuda::awq.
[[nodiscard]] inline std::optional<quantized_matrix> awq_of_host_matrix(context& on, matrix_view<float const> W,
                                                                        matrix_view<float const> hessian,
                                                                        std::vector<float> const& scales,
                                                                        awq_options const& options,
                                                                        matrix_view<float const> judge, index_t* rows_kept) {
  index_t const n = W.extent(0), c = W.extent(1);
  bool const judged = judge.data != nullptr && judge.data != hessian.data;
  if (n == 0 || c < detail::least_awq_columns || options.groups.kind == group_kind::tensor) return std::nullopt;
  if (options.clip && options.groups.block_columns(c) > detail::clip_shape::most_group) return std::nullopt;
  if (!W.contiguous() || !hessian.contiguous() || (judged && !judge.contiguous())) return std::nullopt;
  expects(hessian.extent(0) == c && hessian.extent(1) == c, "awq",
          "Hessian: expected as many rows and columns as the weight has columns");
  detail::uploaded_matrix weight(on), steering(on), judging(on);
  return cuda::awq<float>(on, weight(W), steering(hessian), scales, options,
                          judged ? judging(judge) : device_matrix<float const>(), rows_kept);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
