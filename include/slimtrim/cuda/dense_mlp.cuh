// A SwiGLU that every token takes, as a mixture of one expert: the grouped kernels, with groups that are known
// beforehand.
#pragma once

#include <slimtrim/cuda/moe_few.cuh>
#include <slimtrim/cuda/moe_many.cuh>
#include <slimtrim/cuda/moe_view.cuh>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// All tokens to expert 0 with weight 1.
static __global__ void __launch_bounds__(256) take_one_expert(int tokens, expert_groups groups, float* factors) {
  int const i = static_cast<int>(blockIdx.x * 256 + threadIdx.x);
  if (i == 0) {
    groups.offsets[0] = 0;
    groups.offsets[1] = tokens;
    groups.active[0] = 0;
    *groups.active_count = 1;
  }
  if (i >= tokens) return;
  groups.pairs[i] = i;
  groups.position[i] = i;
  factors[i] = 1.0F;
}

}  // namespace detail

/// A workspace of dense_mlp for up to `tokens` tokens.
template <half_precision T>
[[nodiscard]] moe_workspace<T> dense_workspace(context& on, index_t tokens, index_t most_width, index_t hidden) {
  return moe_workspace<T>(on, tokens, 1, 1, most_width, hidden);
}

/// Y = (Y +) down(silu(gate X) * up X). layer: experts = 1, top_k = 1, without a router; X, Y and arithmetic as
/// moe_layer. `work` from dense_workspace, for this width. Two launches up to 16 tokens, three beyond, one more to say
/// that every token takes the expert.
template <half_precision T, tile_kind Kind, class Result>
void dense_mlp(context& on, moe_layer_view<T> const& layer, device_matrix<T const> X, device_matrix<Result> Y,
               moe_workspace<T> const& work, bool accumulate = false) {
  index_t const tokens = X.extent(0);
  expects(layer.experts == 1 && layer.rule.top_k == 1, "cuda::dense_mlp", "layer: expected one expert");
  check_moe_layer(layer, X, work);
  expects(work.experts == 1, "cuda::dense_mlp", "workspace: expected one of dense_workspace");
  expects_equal(Y.extent(0), tokens, "cuda::dense_mlp", "rows of the result");
  expects_equal(Y.extent(1), layer.hidden, "cuda::dense_mlp", "columns of the result");
  if (tokens == 0) return;
  launch(on.stream(), {dim3(blocks_for(ceil_div(tokens, 256))), 256, 0}, detail::take_one_expert,
         static_cast<int>(tokens), work.groups(), work.factors.data());
  if (tokens <= 8) return moe_few<T, Kind, 1, Result>(on, layer, X, Y, work, accumulate);
  if (tokens <= 16) return moe_few<T, Kind, 2, Result>(on, layer, X, Y, work, accumulate);
  tokens <= 32 ? moe_many<T, Kind, 4, Result>(on, layer, X, Y, work, accumulate)
               : moe_many<T, Kind, 8, Result>(on, layer, X, Y, work, accumulate);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
