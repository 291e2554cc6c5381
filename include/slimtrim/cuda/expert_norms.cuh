// What slimtrim::expert_norms adds up, summed on the device from the outputs of experts in the order of group_pairs:
// one read of the outputs, then sums over pairs.
#pragma once

#include <slimtrim/cuda/expert_sums.cuh>
#include <slimtrim/cuda/group.cuh>
#include <slimtrim/cuda/router_statistics.cuh>
#include <slimtrim/statistics/expert_norms.hpp>

#include <cmath>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// A warp a pair: norm and largest magnitude of its row of outputs.
static __global__ void __launch_bounds__(256)
    norms_of_pairs(device_matrix<float const> outputs, std::int32_t const* offsets, int experts, float* norms,
                   float* largest) {
  index_t const pair = static_cast<index_t>(blockIdx.x) * 8 + threadIdx.x / 32;
  if (pair >= offsets[experts]) return;
  double square = 0;
  float most = 0;
  for (index_t j = threadIdx.x % 32; j < outputs.extent(1); j += 32) {
    float const value = outputs(pair, j), size = value < 0 ? -value : value;
    square += static_cast<double>(value) * static_cast<double>(value);
    most = size > most ? size : most;
  }
  square = sum_of_warp(square);
  for (int mask = 16; mask > 0; mask /= 2) {
    float const other = shuffle_xor(most, mask);
    most = other > most ? other : most;
  }
  if (threadIdx.x % 32 != 0) return;
  norms[pair] = static_cast<float>(sqrt(square));
  largest[pair] = most;
}

// What is known about the output of one pair: |f| and g |f|.
struct pair_norms {
  double plain, weighted;
};

// Norms of all pairs, however the outputs were given.
struct all_pair_norms {
  float const* norms;
  std::int32_t const* position;  // of token * slots + slot
  bool weighted;                 // the outputs carry their weight
  [[nodiscard]] __device__ double unweigh(double value, double weight) const {
    return !weighted ? value : (weight != 0 ? value / (weight < 0 ? -weight : weight) : 0.0);
  }
  [[nodiscard]] __device__ pair_norms at(device_routing const& routing, index_t t, index_t s) const {
    index_t const where = position[t * routing.slots() + s];
    double const norm = where < 0 ? 0.0 : static_cast<double>(norms[where]),
                 weight = static_cast<double>(routing.weights(t, s));
    double const plain = unweigh(norm, weight);
    return {plain, weight * plain};
  }
};

// One block an expert.
static __global__ void __launch_bounds__(statistics_threads)
    sum_expert_norms(device_routing routing, all_pair_norms pairs, float const* pair_largest, double const* change,
                     expert_sums out) {
  __shared__ double slots[statistics_threads / 32];
  index_t const j = blockIdx.x, tokens = routing.tokens();
  double sums[7] = {}, largest = 0;
  for (index_t t = threadIdx.x; t < tokens; t += statistics_threads) {
    index_t const s = routing.slot_of(t, j);
    if (s < 0) continue;
    pair_norms const f = pairs.at(routing, t, s);
    double const raw = static_cast<double>(routing.probabilities(t, j)), sum = routing.raw_gate_sum(t);
    sums[0] += f.plain;
    sums[1] += f.plain * f.plain;
    sums[2] += f.weighted;
    sums[3] += raw * f.plain;
    sums[4] += sum > 0 ? raw / sum * f.plain : 0.0;
    sums[5] += f.weighted * f.weighted;
    if (change != nullptr) sums[6] += change[t] * f.weighted;
    index_t const where = pairs.position[t * routing.slots() + s];
    double const most =
        where < 0 ? 0.0
                  : pairs.unweigh(static_cast<double>(pair_largest[where]), static_cast<double>(routing.weights(t, s)));
    largest = most > largest ? most : largest;
  }
  for (int field = 0; field < 7; ++field) {
    double const sum = sum_of_block(sums[field], slots);
    if (threadIdx.x == 0) out.add(field, j, sum);
  }
  for (int mask = 16; mask > 0; mask /= 2) {
    double const other = shuffle_xor(largest, mask);
    largest = other > largest ? other : largest;
  }
  sync_block();
  if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = largest;
  sync_block();
  if (threadIdx.x == 0) {
    double& kept = out.at[7 * out.experts + j];
    for (double const one : slots) kept = one > kept ? one : kept;
  }
  for (index_t i = 0; i < out.experts; ++i) {
    double both = 0;
    for (index_t t = threadIdx.x; t < tokens; t += statistics_threads) {
      index_t const s = routing.slot_of(t, j), other = s < 0 ? -1 : routing.slot_of(t, i);
      if (other >= 0) both += pairs.at(routing, t, s).weighted * pairs.at(routing, t, other).weighted;
    }
    both = sum_of_block(both, slots);
    if (threadIdx.x == 0) out.add_pair(8, 0, j, i, both);
  }
}

}  // namespace detail

/// Whether outputs are f, or already g f, as moe_workspace::routed holds them after moe_layer.
enum class output_weight { none, applied };

/// Sums over routed tokens on the device, in double; `sums()` brings them to the host, for slimtrim::expert_norms::add.
class expert_norm_accumulator {
 public:
  expert_norm_accumulator(context& on, index_t experts) : memory_(on, experts, 8, 1, "cuda::expert_norm_accumulator") {}
  void clear(context& on) { memory_.clear(on); }
  /// Adds tokens; enqueued. outputs: [tokens * slots or more, hidden], the row of a pair where `groups` says it stands;
  /// with output_weight::applied a pair of weight 0 counts as an output of 0. change: [tokens], s_t = 1 - cos(x', x' +
  /// MoE), or no data. Two launches; reads the outputs once. Scratch: 8 bytes a pair. Deterministic.
  void add(context& on, device_routing const& routing, expert_groups const& groups, device_matrix<float const> outputs,
           output_weight weight, device_vector<double const> change = {}) {
    routing.check(memory_.experts(), "cuda::expert_norm_accumulator");
    index_t const pairs = routing.tokens() * routing.slots();
    expects(outputs.extent(0) >= pairs, "cuda::expert_norm_accumulator", "rows of outputs: expected one a pair");
    expects(change.data == nullptr || (change.extent(0) == routing.tokens() && change.stride(0) == 1),
            "cuda::expert_norm_accumulator", "change: expected one number a token, side by side");
    if (pairs == 0) return;
    auto const norms = on.scratch_for<float>(2 * pairs);
    launch(on.stream(), {dim3(blocks_for(ceil_div(pairs, 8))), 256, 0}, detail::norms_of_pairs, outputs, groups.offsets,
           static_cast<int>(memory_.experts()), norms.data(), norms.data() + pairs);
    launch(on.stream(), {dim3(blocks_for(memory_.experts())), detail::statistics_threads, 0}, detail::sum_expert_norms,
           routing, detail::all_pair_norms{norms.data(), groups.position, weight == output_weight::applied},
           norms.data() + pairs, change.data, memory_.view());
  }
  /// What was added since the last `clear`. Waits for the device.
  [[nodiscard]] expert_norm_sums sums(context& on) const {
    expert_norm_sums out;
    memory_.download(on,
                     {&out.norm, &out.square, &out.weighted, &out.raw_weighted, &out.renormalised_weighted,
                      &out.weighted_square, &out.change_weighted, &out.largest},
                     {&out.pair});
    return out;
  }

 private:
  detail::expert_sum_memory memory_;
};

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
