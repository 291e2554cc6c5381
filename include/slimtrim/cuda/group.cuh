// Routed pairs (token, slot) in the order of experts, without sorting: a stable counting sort in which every expert's block
// counts for itself, so blocks never wait for each other.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/context.cuh>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Pairs by expert, in device memory. pairs: token * slots + slot, ascending within an expert.
struct expert_groups {
  std::int32_t* offsets = nullptr;    // [experts + 1]
  std::int32_t* pairs = nullptr;      // [tokens * slots]
  std::int32_t* position = nullptr;   // [tokens * slots]: where a pair stands in `pairs`, -1 for an unused slot
  std::int32_t* active = nullptr;     // [experts]: those with tokens, ascending
  std::int32_t* active_count = nullptr;
};

namespace detail {

inline constexpr int group_threads = 256;

// One block an expert. Reads all pairs twice: to count the pairs of lower experts, then to place its own.
static __global__ void __launch_bounds__(group_threads)
    group_pairs(std::int32_t const* experts_of_pairs, int count, int experts, expert_groups out) {
  int* const busy = reinterpret_cast<int*>(shared_memory());  // [experts]
  __shared__ int lower_of_warp[group_threads / 32];
  __shared__ int mine_of_warp[group_threads / 32];
  int const me = static_cast<int>(blockIdx.x), thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  for (int e = thread; e < experts; e += group_threads) busy[e] = 0;
  sync_block();
  int lower = 0;
  for (int p = thread; p < count; p += group_threads) {
    int const e = experts_of_pairs[p];
    if (e >= 0) busy[e] = 1;
    lower += e >= 0 && e < me;
    if (me == 0 && e < 0) out.position[p] = -1;
  }
  for (int mask = 16; mask > 0; mask /= 2) lower += shuffle_xor(lower, mask);
  if (thread % 32 == 0) lower_of_warp[warp] = lower;
  sync_block();
  int next = 0;
  for (int w = 0; w < group_threads / 32; ++w) next += lower_of_warp[w];
  if (thread == 0) {
    out.offsets[me] = next;
    int rank = 0;
    for (int e = 0; e < me; ++e) rank += busy[e];
    if (busy[me] != 0) out.active[rank] = me;
    if (me == experts - 1) *out.active_count = rank + busy[me];
  }
  for (int first = 0; first < count; first += group_threads) {
    int const p = first + thread;
    bool const mine = p < count && experts_of_pairs[p] == me;
    std::uint32_t const bits = ballot(mine);
    sync_block();
    if (thread % 32 == 0) mine_of_warp[warp] = count_bits(bits);
    sync_block();
    int before = next;
    for (int w = 0; w < group_threads / 32; ++w) {
      if (w < warp) before += mine_of_warp[w];
      next += mine_of_warp[w];
    }
    if (mine) {
      int const at = before + count_bits(bits & ((1U << (thread % 32)) - 1U));
      out.pairs[at] = p;
      out.position[p] = at;
    }
  }
  if (me == experts - 1 && thread == 0) out.offsets[experts] = next;
}

}  // namespace detail

/// Groups pairs by expert. indices: [tokens, slots] contiguous, negative for an unused slot, others below `experts`.
/// One launch, no synchronisation; the same result as slimtrim::group_by_expert.
inline void group_pairs(context& on, device_matrix<std::int32_t const> indices, index_t experts, expert_groups const& out) {
  expects(indices.contiguous(), "cuda::group_pairs", "indices: expected contiguous rows");
  expects(experts > 0 && experts <= 8192 && indices.size() <= INT32_MAX, "cuda::group_pairs", "experts: expected 1 .. 8192");
  launch(on.stream(), {dim3(blocks_for(experts)), detail::group_threads, sizeof(int) * static_cast<std::size_t>(experts)},
         detail::group_pairs, indices.data, static_cast<int>(indices.size()), static_cast<int>(experts), out);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
