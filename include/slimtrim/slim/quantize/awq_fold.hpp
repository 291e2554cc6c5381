// Where AWQ's channel scales go: whatever makes the input is divided by them, whatever else reads it is multiplied.
//
// For a MoE layer the norm before it is divided; gate and up of every expert are quantised as W diag(s); and the router and
// the shared experts, which read the same norm, are multiplied too. Leaving the router out changes the routing silently, a
// well-known defect of AWQ tools on MoE models.
#pragma once

#include <slimtrim/core/error.hpp>
#include <slimtrim/core/numeric.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <cmath>
#include <vector>

namespace slimtrim {
inline namespace v0 {

/// norm_j = round(norm_j / s_j), and s_j becomes norm_j(before) / norm_j(after), the scale that was really applied: so the
/// rounding of the stored norm is not an error, only another scale. A channel whose rounded norm would be zero or infinite keeps its
/// norm and s_j = 1. norm: [in]; scales: [in]. Exact for powers of two. Throws `error` when the lengths differ.
template <real_scalar T>
void fold_into_norm(vector_view<T> norm, std::vector<float>& scales) {
  expects_equal(static_cast<long long>(scales.size()), norm.extent(0), "fold_into_norm", "channel scales");
  for (index_t j = 0; j < norm.extent(0); ++j) {
    float& s = scales[static_cast<std::size_t>(j)];
    float const before = static_cast<float>(norm(j));
    T const rounded = static_cast<T>(before / s);
    float const after = static_cast<float>(rounded), applied = before / after;
    if (before == 0.0F) continue;  // the channel carries nothing, whatever its scale
    if (after != 0.0F && std::isfinite(after) && std::isfinite(applied)) {
      norm(j) = rounded;
      s = applied;
    } else {
      s = 1.0F;
    }
  }
}

/// W_ij = round(W_ij s_j): a router, or another reader of the scaled input that stays in its storage type. W: [out, in].
template <real_scalar T>
void multiply_columns(matrix_view<T> W, std::vector<float> const& scales) {
  expects_equal(static_cast<long long>(scales.size()), W.extent(1), "multiply_columns", "channel scales");
  for (index_t i = 0; i < W.extent(0); ++i)
    for (index_t j = 0; j < W.extent(1); ++j)
      W(i, j) = static_cast<T>(static_cast<float>(W(i, j)) * scales[static_cast<std::size_t>(j)]);
}

/// W_ij = round(W_ij / s_i): the up projection, whose outputs are the scaled inputs of the down projection. W: [out, in];
/// scales: [out].
template <real_scalar T>
void divide_rows(matrix_view<T> W, std::vector<float> const& scales) {
  expects_equal(static_cast<long long>(scales.size()), W.extent(0), "divide_rows", "channel scales");
  for (index_t i = 0; i < W.extent(0); ++i)
    for (index_t j = 0; j < W.extent(1); ++j)
      W(i, j) = static_cast<T>(static_cast<float>(W(i, j)) / scales[static_cast<std::size_t>(i)]);
}

}  // namespace v0
}  // namespace slimtrim
