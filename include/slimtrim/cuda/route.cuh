// Routing on the device: one warp a token, every rule of routing_rule, in double as on the host, so that the same experts
// are chosen; for the forward pass fused with the product that makes the logits.
#pragma once

#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/reduce.cuh>
#include <slimtrim/cuda/router_logits.cuh>
#include <slimtrim/cuda/top_k.cuh>
#include <slimtrim/cuda/words.hpp>
#include <slimtrim/router/routing_rule.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <cmath>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// What routing writes for every token; `probabilities` may have no data.
struct route_outputs {
  device_matrix<std::int32_t> indices{};
  device_matrix<float> weights{};
  device_matrix<float> probabilities{};
};

namespace detail {

inline constexpr int most_experts = 1024;
inline constexpr int route_warps = 4;

// Shared memory of one warp: [experts] doubles for scores and for choices, [groups] for groups, [experts] float logits.
[[nodiscard]] SLIMTRIM_HD constexpr std::size_t route_bytes(index_t experts, index_t groups) {
  return static_cast<std::size_t>(round_up(8 * (2 * experts + groups) + 4 * experts, 16));
}

[[nodiscard]] __device__ inline double score_alone(score_function score, double logit) {
  if (score == score_function::sqrt_softplus)
    return sqrt(logit > 0 ? logit + log1p(exp(-logit)) : log1p(exp(logit)));
  double const e = exp(logit < 0 ? logit : -logit);
  return logit >= 0 ? 1 / (1 + e) : e / (1 + e);
}

[[nodiscard]] __device__ inline double removed_expert() { return -static_cast<double>(INFINITY); }

// Scores of groups, and -infinity for the choices of groups that are not among the best.
__device__ inline void limit_groups(routing_rule const& rule, int experts, double* choices, double* groups) {
  int const lane = static_cast<int>(threadIdx.x % 32), count = static_cast<int>(rule.groups), size = experts / count;
  double const removed = removed_expert();
  for (int g = lane; g < count; g += 32) {
    double best = removed, second = removed;
    for (int j = g * size; j < (g + 1) * size; ++j) {
      if (choices[j] > best) {
        second = best;
        best = choices[j];
      } else if (choices[j] > second) {
        second = choices[j];
      }
    }
    groups[g] = rule.group_by == group_score::top_two_sum && second != removed ? best + second : best;
  }
  sync_warp();
  for (int g = lane; g < count; g += 32) {
    int ahead = 0;
    for (int other = 0; other < count; ++other)
      ahead += groups[other] > groups[g] || (groups[other] == groups[g] && other < g);
    if (ahead >= rule.groups_kept)
      for (int j = g * size; j < (g + 1) * size; ++j) choices[j] = removed;
  }
  sync_warp();
}

// The weights of the chosen experts by a warp: lane s has slot s, whose expert is `mine` (-1: none). Exponentials are worked out side
// by side; sums are formed in the order of slots.
__device__ inline void weigh_slots(routing_rule const& rule, float const* logits, double const* scores, int mine,
                                   device_vector<float> weights) {
  int const lane = static_cast<int>(threadIdx.x % 32), slots = static_cast<int>(rule.top_k);
  bool const selected_softmax = rule.score == score_function::softmax && (rule.select_before_score || rule.renormalise);
  bool const ratio_only = selected_softmax && (rule.select_before_score ||
                                               (rule.weight_sum_epsilon == 0 && rule.weight_sum_floor == 0));
  double const logit = mine >= 0 ? static_cast<double>(logits[mine]) : removed_expert();
  double largest = logit;
  for (int mask = 16; mask > 0; mask /= 2) {
    double const other = shuffle_xor(largest, mask);
    largest = other > largest ? other : largest;
  }
  double value = 0;
  if (mine >= 0) value = ratio_only ? exp(logit - largest) : scores[mine];
  double divisor = 1;
  if (rule.renormalise || ratio_only) {
    double sum = 0;
    for (int s = 0; s < slots; ++s) sum += shuffle(value, s);
    double const raised = sum + rule.weight_sum_epsilon;
    divisor = ratio_only ? sum : (raised > rule.weight_sum_floor ? raised : rule.weight_sum_floor);
    if (divisor == 0) divisor = 1;
  }
  if (lane < slots) weights(lane) = mine < 0 ? 0.0F : static_cast<float>(value / divisor * static_cast<double>(rule.scale));
}

// Routes one token by the calling warp. `bytes`: route_bytes of shared memory whose logits are filled.
__device__ inline void route_token(routing_rule const& rule, index_t token, int experts, unsigned char* bytes,
                                   device_vector<float const> bias, device_vector<std::uint8_t const> kept,
                                   route_outputs const& out, device_report* report) {
  auto* const scores = reinterpret_cast<double*>(bytes);
  double* const choices = scores + experts;
  double* const groups = choices + experts;
  auto* const logits = reinterpret_cast<float*>(groups + rule.groups);
  int const lane = static_cast<int>(threadIdx.x % 32);
  double const removed = removed_expert();
  double largest = removed;
  for (int j = lane; j < experts; j += 32) {
    float const value = logits[j];
    bool const wrong = !(value < INFINITY);
    if (wrong) raise_to(&report->not_finite, static_cast<unsigned long long>(token * experts + j) + 1);
    if (wrong || (kept.data != nullptr && kept(j) == 0)) logits[j] = -INFINITY;
    largest = static_cast<double>(logits[j]) > largest ? static_cast<double>(logits[j]) : largest;
  }
  for (int mask = 16; mask > 0; mask /= 2) {
    double const other = shuffle_xor(largest, mask);
    largest = other > largest ? other : largest;
  }
  double sum = 0;
  bool const softmax = rule.score == score_function::softmax;
  for (int j = lane; j < experts; j += 32) {
    double const logit = static_cast<double>(logits[j]);
    scores[j] = logit == removed ? 0.0 : (softmax ? exp(logit - largest) : score_alone(rule.score, logit));
    sum += scores[j];
  }
  sum = sum_of_warp(sum);
  for (int j = lane; j < experts; j += 32) {
    if (softmax && sum > 0) scores[j] /= sum;
    if (out.probabilities.data != nullptr) out.probabilities(token, j) = static_cast<float>(scores[j]);
    double const logit = static_cast<double>(logits[j]);
    double const shift = bias.data != nullptr ? static_cast<double>(bias(j)) : 0.0;
    choices[j] = logit == removed ? removed : (rule.select_before_score ? logit : scores[j]) + shift;
  }
  sync_warp();
  if (rule.groups_kept < rule.groups) limit_groups(rule, experts, choices, groups);
  candidate<double> last;
  int mine = -1;
  for (index_t slot = 0; slot < rule.top_k; ++slot) {
    candidate<double> best;
    for (int j = lane; j < experts; j += 32) {
      candidate<double> const here{choices[j], j};
      if (choices[j] != removed && (slot == 0 || comes_before(last, here)) && comes_before(here, best)) best = here;
    }
    // Once nothing is left, nothing comes behind it either.
    last = slot > 0 && last.index < 0 ? last : first_of_warp(best);
    if (lane == slot) mine = static_cast<int>(last.index);
  }
  if (lane < rule.top_k) out.indices(token, lane) = mine;
  weigh_slots(rule, logits, scores, mine, row(out.weights, token));
}

// One warp a token, logits given.
static __global__ void __launch_bounds__(32 * route_warps)
    route_logits(routing_rule rule, device_matrix<float const> given, device_vector<float const> bias,
                 device_vector<std::uint8_t const> kept, route_outputs out, device_report* report) {
  int const warp = static_cast<int>(threadIdx.x / 32), experts = static_cast<int>(given.extent(1));
  index_t const token = static_cast<index_t>(blockIdx.x) * route_warps + warp;
  if (token >= given.extent(0)) return;
  unsigned char* const bytes = shared_memory() + static_cast<std::size_t>(warp) * route_bytes(experts, rule.groups);
  auto* const logits = reinterpret_cast<float*>(bytes + 8 * (2 * experts + rule.groups));
  for (int j = static_cast<int>(threadIdx.x % 32); j < experts; j += 32) logits[j] = given(token, j);
  sync_warp();
  route_token(rule, token, experts, bytes, bias, kept, out, report);
}

// One block a token: its warps share the router's rows, then the first warp routes.
template <half_precision T>
__global__ void __launch_bounds__(256)
    route_activations(routing_rule rule, device_matrix<T const> X, device_matrix<T const> router, device_vector<float const> bias,
                      device_vector<std::uint8_t const> kept, route_outputs out, device_report* report) {
  int const experts = static_cast<int>(router.extent(0));
  index_t const token = blockIdx.x;
  auto* const logits = reinterpret_cast<float*>(shared_memory() + 8 * (2 * experts + rule.groups));
  auto const* const x = reinterpret_cast<words4 const*>(X.data + token * X.stride(0));
  router_logits<T, 256, 4>(
      router, [&](int c) { return load_shared_by_blocks(x + c); }, logits);
  sync_block();
  if (threadIdx.x < 32) route_token(rule, token, experts, shared_memory(), bias, kept, out, report);
}

inline void check_route(routing_rule const& rule, index_t experts) {
  check_routing_rule(rule, experts);
  expects(experts <= most_experts, "cuda::route", "experts: expected at most 1024");
  expects(rule.top_k <= 32, "cuda::route", "top_k: expected at most 32");
}

}  // namespace detail

/// slimtrim::route on the device: the same rules, the same order of slots, in double; sums of more than 32 scores may
/// differ from the host's in the last bit of a double. A NaN or +infinity removes its expert and is reported at the next
/// context::synchronise. At most 1024 experts, 32 of them a token. slimtrim::route checks extents.
inline void route(context& on, device_matrix<float const> logits, routing_rule const& rule, device_vector<float const> bias,
                  route_outputs const& out, device_vector<std::uint8_t const> kept) {
  index_t const experts = logits.extent(1);
  detail::check_route(rule, experts);
  launch(on.stream(), {dim3(blocks_for(ceil_div(logits.extent(0), detail::route_warps))), 32 * detail::route_warps,
                       detail::route_warps * detail::route_bytes(experts, rule.groups)},
         detail::route_logits, rule, logits, bias, kept, out, on.report());
}

/// logits = X routerᵀ in float, then as `route`, in one launch. X: [T, hidden], router: [experts, hidden], 16-byte aligned
/// rows of a multiple of 8 elements. Each block reads the whole router, which stays in L2.
template <half_precision T>
void route(context& on, device_matrix<T const> X, device_matrix<T const> router, routing_rule const& rule,
           device_vector<float const> bias, route_outputs const& out, device_vector<std::uint8_t const> kept) {
  index_t const experts = router.extent(0);
  detail::check_route(rule, experts);
  expects_equal(X.extent(1), router.extent(1), "cuda::route", "columns of X");
  expects(X.extent(1) % 8 == 0 && X.stride(1) == 1 && router.stride(1) == 1 && X.stride(0) % 8 == 0 &&
              router.stride(0) % 8 == 0 && reinterpret_cast<std::uintptr_t>(X.data) % 16 == 0 &&
              reinterpret_cast<std::uintptr_t>(router.data) % 16 == 0,
          "cuda::route", "X, router: expected rows aligned to 16 bytes");
  launch(on.stream(), {dim3(blocks_for(X.extent(0))), 256, detail::route_bytes(experts, rule.groups)},
         detail::route_activations<T>, rule, X, router, bias, kept, out, on.report());
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
