// The mixture-of-experts layer on the device: route, gate and up with SiLU, down, weighted sum, without copying a token and
// without asking the host anything in between, so that it can be captured in a CUDA graph.
//
// | launch             | few tokens an expert                              | many                                        |
// |--------------------|---------------------------------------------------|---------------------------------------------|
// | route_activations  | a block a token: logits, experts, weights         | the same                                    |
// | group_pairs        | a block an expert: its pairs                      | the same                                    |
// | gate and up        | a block a strip and active expert (moe_few.cuh)   | 128 rows, a tile of pairs (moe_many.cuh)    |
// | down               | the same; the last block of a strip adds the slots| the same, then one pass that adds the slots |
//
// Few: weights are read once, bound by bandwidth. Many: from about 16 tokens an expert, bound by the tensor cores.
#pragma once

#include <slimtrim/cuda/group.cuh>
#include <slimtrim/cuda/moe_few.cuh>
#include <slimtrim/cuda/moe_many.cuh>
#include <slimtrim/cuda/moe_view.cuh>
#include <slimtrim/cuda/moe_warpgroup.cuh>
#include <slimtrim/cuda/route.cuh>
#include <slimtrim/tensor/subview.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Which kernels a layer takes; `automatic` decides between few and many by the mean number of tokens an expert gets.
/// `warpgroup`: many by wgmma, for compute capability 9.0 and code compiled for sm_90a; dense and 4-bit weights.
enum class moe_path { automatic, few, many, warpgroup };

/// Y = sum over chosen experts of weight * down(silu(gate X) * up X), slots added in the order of routing.
///
/// X: [T, hidden] in T, rows aligned to 16 bytes; Y: [T, hidden] in any type and layout, overwritten, or added to with
/// `accumulate` (for shared experts computed before). Hidden activations are rounded to T once, everything else is float.
/// Work beyond one read of the chosen experts: T * top_k * (2 width + 8 hidden) bytes in `work`. Deterministic. Logits that are
/// not finite are reported by context::synchronise. Throws `error` on shapes, on a workspace too small, and on rules whose
/// weight multiplies the input.
template <half_precision T, tile_kind Kind, class Result>
void moe_layer(context& on, moe_layer_view<T> const& layer, device_matrix<T const> X, device_matrix<Result> Y,
               moe_workspace<T> const& work, bool accumulate = false, moe_path path = moe_path::automatic) {
  index_t const tokens = X.extent(0), k = layer.rule.top_k;
  check_moe_layer(layer, X, work);
  expects_equal(layer.router.extent(0), layer.experts, "cuda::moe_layer", "rows of the router");
  expects_equal(Y.extent(0), tokens, "cuda::moe_layer", "rows of the result");
  expects_equal(Y.extent(1), layer.hidden, "cuda::moe_layer", "columns of the result");
  if (tokens == 0) return;
  device_matrix<std::int32_t> const indices(work.indices.data(), tokens, k);
  device_matrix<float> const factors(work.factors.data(), tokens, k);
  route<T>(on, X, layer.router, layer.rule, layer.selection_bias, {indices, factors, {}}, layer.kept);
  group_pairs(on, as_const(indices), layer.experts, work.groups());
  index_t const pairs = tokens * k, mean = ceil_div(pairs, layer.experts);
  if (path == moe_path::automatic) path = mean > 16 ? moe_path::many : moe_path::few;
  if (path == moe_path::warpgroup) {
    if constexpr (Kind == tile_kind::sparse4) {
      throw error("cuda::moe_layer: wgmma for sparse weights is not supported");
    } else {
      moe_warpgroup<T, Kind, Result>(on, layer, X, Y, work, accumulate);
    }
  } else if (path == moe_path::many) {
    mean > 32 ? moe_many<T, Kind, 8, Result>(on, layer, X, Y, work, accumulate)
              : moe_many<T, Kind, 4, Result>(on, layer, X, Y, work, accumulate);
  } else if (tokens <= 8 || mean <= 4) {
    moe_few<T, Kind, 1, Result>(on, layer, X, Y, work, accumulate);
  } else {
    moe_few<T, Kind, 2, Result>(on, layer, X, Y, work, accumulate);
  }
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
