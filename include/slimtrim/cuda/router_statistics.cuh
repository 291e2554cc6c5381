// What slimtrim::router_statistics adds up, summed on the device from routing that is there already.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/expert_sums.cuh>
#include <slimtrim/cuda/reduce.cuh>
#include <slimtrim/statistics/router_statistics.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// slimtrim::routing_view in device memory.
struct device_routing {
  device_matrix<float const> probabilities{};   ///< [tokens, experts]
  device_matrix<std::int32_t const> indices{};  ///< [tokens, slots], negative: unused
  device_matrix<float const> weights{};         ///< [tokens, slots]

  [[nodiscard]] SLIMTRIM_HD index_t tokens() const { return indices.extent(0); }
  [[nodiscard]] SLIMTRIM_HD index_t slots() const { return indices.extent(1); }
  [[nodiscard]] SLIMTRIM_HD index_t experts() const { return probabilities.extent(1); }
  /// The slot in which `token` holds `expert`, or -1.
  [[nodiscard]] SLIMTRIM_HD index_t slot_of(index_t token, index_t expert) const {
    for (index_t s = 0; s < slots(); ++s)
      if (indices(token, s) == expert) return s;
    return -1;
  }
  [[nodiscard]] SLIMTRIM_HD double raw_gate_sum(index_t token) const {
    double sum = 0;
    for (index_t s = 0; s < slots(); ++s)
      if (indices(token, s) >= 0) sum += static_cast<double>(probabilities(token, indices(token, s)));
    return sum;
  }
  /// Throws `error` where the parts do not fit together. Indices are not read.
  void check(index_t experts_expected, char const* where) const {
    expects_equal(experts(), experts_expected, where, "columns of probabilities");
    expects_equal(probabilities.extent(0), tokens(), where, "rows of probabilities");
    expects_equal(weights.extent(0), tokens(), where, "rows of weights");
    expects_equal(weights.extent(1), slots(), where, "columns of weights");
  }
};

namespace detail {

// One block an expert. Threads take tokens in turns; whatever is a sum of doubles is added in an order that is always
// the same.
static __global__ void __launch_bounds__(statistics_threads) sum_routing(device_routing routing, expert_sums out) {
  int* const together = reinterpret_cast<int*>(shared_memory());  // [experts]
  __shared__ double slots[statistics_threads / 32];
  index_t const j = blockIdx.x, experts = out.experts;
  for (index_t i = threadIdx.x; i < experts; i += statistics_threads) together[i] = 0;
  sync_block();
  double probability = 0, weight = 0, raw = 0, renormalised = 0;
  for (index_t t = threadIdx.x; t < routing.tokens(); t += statistics_threads) {
    double const p = static_cast<double>(routing.probabilities(t, j));
    probability += p;
    index_t const slot = routing.slot_of(t, j);
    if (slot < 0) continue;
    double const sum = routing.raw_gate_sum(t);
    weight += static_cast<double>(routing.weights(t, slot));
    raw += p;
    renormalised += sum > 0 ? p / sum : 0.0;
    for (index_t s = 0; s < routing.slots(); ++s)
      if (routing.indices(t, s) >= 0) count_up(together + routing.indices(t, s));
  }
  probability = sum_of_block(probability, slots);
  weight = sum_of_block(weight, slots);
  raw = sum_of_block(raw, slots);
  renormalised = sum_of_block(renormalised, slots);
  if (threadIdx.x == 0) {
    out.add(0, j, static_cast<double>(together[j]));
    out.add(1, j, probability);
    out.add(2, j, weight);
    out.add(3, j, raw);
    out.add(4, j, renormalised);
  }
  for (index_t i = threadIdx.x; i < experts; i += statistics_threads)
    out.add_pair(5, 0, j, i, static_cast<double>(together[i]));
  for (index_t i = 0; i <= j; ++i) {
    double product = 0;
    for (index_t t = threadIdx.x; t < routing.tokens(); t += statistics_threads)
      product += static_cast<double>(routing.probabilities(t, j)) * static_cast<double>(routing.probabilities(t, i));
    product = sum_of_block(product, slots);
    if (threadIdx.x == 0) out.add_pair(5, 1, j, i, product);
  }
}

}  // namespace detail

/// Sums over tokens on the device, in double; `sums()` brings them to the host, for slimtrim::router_statistics::add.
class router_accumulator {
 public:
  router_accumulator(context& on, index_t experts) : memory_(on, experts, 5, 2, "cuda::router_accumulator") {}
  void clear(context& on) {
    tokens_ = 0;
    memory_.clear(on);
  }
  /// Adds tokens; enqueued. Indices must be below the number of experts. One launch, a block an expert, each reading
  /// all probabilities of the experts up to its own: tokens * experts² / 2 multiply-adds in double. Deterministic.
  void add(context& on, device_routing const& routing) {
    routing.check(memory_.experts(), "cuda::router_accumulator");
    tokens_ += static_cast<double>(routing.tokens());
    if (routing.tokens() == 0) return;
    index_t const experts = memory_.experts();
    launch(on.stream(),
           {dim3(blocks_for(experts)), detail::statistics_threads, sizeof(int) * static_cast<std::size_t>(experts)},
           detail::sum_routing, routing, memory_.view());
  }
  /// What was added since the last `clear`. Waits for the device.
  [[nodiscard]] router_sums sums(context& on) const {
    router_sums out;
    out.tokens = tokens_;
    memory_.download(on, {&out.count, &out.probability, &out.weight, &out.raw_weight, &out.renormalised_weight},
                     {&out.coactivation, &out.product});
    return out;
  }

 private:
  double tokens_ = 0;
  detail::expert_sum_memory memory_;
};

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
