// What comes before the experts of a layer, for few tokens in one launch: normalise, route, group by expert. One block
// a token; the block that finishes last groups the pairs of all.
#pragma once

#include <slimtrim/cuda/group.cuh>
#include <slimtrim/cuda/moe_view.cuh>
#include <slimtrim/cuda/rms_norm.cuh>
#include <slimtrim/cuda/route.cuh>
#include <slimtrim/cuda/router_logits.cuh>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// The most tokens for which one block groups all pairs.
inline constexpr index_t most_front_tokens = 32;

namespace detail {

inline constexpr int front_threads = 256;

// Pairs by expert, by one block. `chosen`: [count], shared memory; busy: [experts], shared. As group_pairs.
__device__ inline void group_in_block(int const* chosen, int count, int experts, int* busy, expert_groups const& out) {
  int const thread = static_cast<int>(threadIdx.x);
  for (int e = thread; e < experts; e += front_threads) busy[e] = 0;
  sync_block();
  for (int p = thread; p < count; p += front_threads) {
    if (chosen[p] >= 0)
      busy[chosen[p]] = 1;
    else
      out.position[p] = -1;
  }
  sync_block();
  for (int e = thread; e < experts; e += front_threads) {
    int next = 0, rank = 0;
    for (int p = 0; p < count; ++p) next += chosen[p] >= 0 && chosen[p] < e;
    for (int other = 0; other < e; ++other) rank += busy[other];
    out.offsets[e] = next;
    if (busy[e] != 0) {
      out.active[rank] = e;
      for (int p = 0; p < count; ++p)
        if (chosen[p] == e) {
          out.pairs[next] = p;
          out.position[p] = next++;
        }
    }
    if (e == experts - 1) {
      out.offsets[experts] = next;
      *out.active_count = rank + busy[e];
    }
  }
}

template <half_precision T>
__global__ void __launch_bounds__(front_threads, 2)
    moe_front_kernel(moe_layer_view<T> layer, device_matrix<float> X, device_matrix<float const> added,
                     device_vector<float const> weight, double epsilon, device_matrix<T> N, route_outputs out,
                     device_report* report, expert_groups groups, unsigned* ticket) {
  __shared__ double slots[front_threads / 32];
  __shared__ bool is_last;
  int const experts = static_cast<int>(layer.experts);
  index_t const token = blockIdx.x;
  unsigned char* const bytes = shared_memory();
  std::size_t const route_size = route_bytes(layer.experts, layer.rule.groups);
  auto* const logits = reinterpret_cast<float*>(bytes + 8 * (2 * experts + layer.rule.groups));
  auto* const row = reinterpret_cast<T*>(bytes + route_size);
  let_later_work_begin();
  router_start<8> const begun(layer.router);  // half of a row of 4096
  wait_for_earlier_work();
  normalise_row<T, front_threads>(X, added, weight, epsilon, N, token, slots, row);
  sync_block();
  auto const* const x = reinterpret_cast<words4 const*>(row);
  router_logits<T, front_threads, 8>(
      layer.router, [&](int c) { return x[c]; }, logits, &begun);
  sync_block();
  if (threadIdx.x < 32) route_token(layer.rule, token, experts, bytes, layer.selection_bias, layer.kept, out, report);
  sync_block();
  if (threadIdx.x == 0) is_last = gridDim.x == 1 || draw_ticket(ticket) == gridDim.x - 1;
  sync_block();
  if (!is_last) return;
  int const count = static_cast<int>(out.indices.size());
  auto* const chosen = reinterpret_cast<int*>(bytes);
  for (int p = static_cast<int>(threadIdx.x); p < count; p += front_threads)
    chosen[p] = load_fresh(out.indices.data + p);
  sync_block();
  group_in_block(chosen, count, experts, chosen + count, groups);
  if (threadIdx.x == 0) *ticket = 0;
}

}  // namespace detail

/// add_and_normalise, then routing and grouping of the result into `work`, for at most 32 tokens: what moe_few then
/// needs. The same bits as the three kernels one after another, but for the order of the norm's sum. N: [T,
/// layer.hidden], 16-byte aligned rows; ticket: in device memory, zero between calls. Deterministic. Logits that are
/// not finite are reported by context::synchronise.
template <half_precision T>
void moe_front(context& on, moe_layer_view<T> const& layer, device_matrix<float> X, device_matrix<float const> added,
               device_vector<float const> weight, double epsilon, device_matrix<T> N, moe_workspace<T> const& work,
               unsigned* ticket) {
  index_t const tokens = X.extent(0), pairs = tokens * layer.rule.top_k;
  detail::check_normalise<T>(X, added, weight, N);
  check_moe_layer(layer, as_const(N), work);
  detail::check_route(layer.rule, layer.experts);
  expects(tokens <= most_front_tokens, "cuda::moe_front", "tokens: expected at most 32");
  expects_equal(layer.router.extent(0), layer.experts, "cuda::moe_front", "rows of the router");
  expects_equal(layer.router.extent(1), layer.hidden, "cuda::moe_front", "columns of the router");
  expects(layer.router.stride(1) == 1 && layer.router.stride(0) % 8 == 0 &&
              reinterpret_cast<std::uintptr_t>(layer.router.data) % 16 == 0,
          "cuda::moe_front", "router: expected rows aligned to 16 bytes");
  if (tokens == 0) return;
  device_matrix<std::int32_t> const indices(work.indices.data(), tokens, layer.rule.top_k);
  device_matrix<float> const factors(work.factors.data(), tokens, layer.rule.top_k);
  std::size_t const front =
      detail::route_bytes(layer.experts, layer.rule.groups) + sizeof(T) * static_cast<std::size_t>(layer.hidden);
  std::size_t const back = sizeof(int) * static_cast<std::size_t>(pairs + layer.experts);
  launch(on.stream(), {dim3(blocks_for(tokens)), detail::front_threads, front > back ? front : back, on.overlaps()},
         detail::moe_front_kernel<T>, layer, X, added, weight, epsilon, N, route_outputs{indices, factors, {}},
         on.report(), work.groups(), ticket);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
