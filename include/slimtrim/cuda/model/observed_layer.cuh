// What the hooks of observer.hpp see, copied to the host while a layer runs on the device and told afterwards, so that
// the device is free for others while an observer computes.
#pragma once

#include <slimtrim/cuda/blas.cuh>
#include <slimtrim/cuda/model/decoder_layer.cuh>
#include <slimtrim/cuda/model/device_sums.cuh>
#include <slimtrim/cuda/model/observed_statistics.cuh>
#include <slimtrim/model/layer_hooks.hpp>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// The first `width` columns as floats on the host.
template <class T>
[[nodiscard]] std::shared_ptr<tensor<float, 2> const> rows_on_host(context& on, device_matrix<T const> from,
                                                                   index_t width) {
  index_t const n = from.extent(0);
  auto held = std::make_shared<tensor<float, 2>>(n, width);
  tensor<float, 2>& to = *held;
  auto const dense = on.scratch_for<float>(n * width);
  device_matrix<float> const copy(dense.data(), n, width);
  copy_elements<T, float>(on, columns(from, 0, width), copy);
  copy_to_host(on.stream(), dense.data(), n * width, to.view().data);
  return held;
}

// Y(t) += sum over slots of factor * row of the pair.
struct add_weighted_slots {
  float const* routed;
  std::int32_t const* position;
  float const* factors;
  index_t slots;
  device_matrix<float> Y;
  SLIMTRIM_HD void operator()(index_t t, index_t c) const {
    float sum = Y(t, c);
    for (index_t s = 0; s < slots; ++s) {
      index_t const at = position[t * slots + s];
      if (at >= 0) sum += factors[t * slots + s] * routed[at * Y.extent(1) + c];
    }
    Y(t, c) = sum;
  }
};

// What the row of pair pairs[i] counts in a sum.
struct row_factor {
  std::int32_t const* pairs;
  float const* weights;  // by pair, or null: one each
  float const* counts;   // by token, or null
  index_t slots;
  device_matrix<float> to;
  SLIMTRIM_HD void operator()(index_t, index_t i) const {
    index_t const pair = pairs[i];
    to(0, i) = (weights != nullptr ? weights[pair] : 1.0F) * (counts != nullptr ? counts[pair / slots] : 1.0F);
  }
};
struct token_of_pair {
  std::int32_t const* pairs;
  index_t slots;
  device_matrix<std::int32_t> to;
  SLIMTRIM_HD void operator()(index_t, index_t i) const { to(0, i) = static_cast<std::int32_t>(pairs[i] / slots); }
};

struct set_element {
  float value;
  device_matrix<float> to;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { to(i, j) = value; }
};

// The grouped kernels alone, on groups and factors that stand in `work`.
template <half_precision T, tile_kind Kind>
void run_grouped(context& on, moe_layer_view<T> const& layer, device_matrix<T const> X, device_matrix<float> Y,
                 moe_workspace<T> const& work) {
  index_t const mean = ceil_div(X.extent(0) * layer.rule.top_k, layer.experts);
  if (mean > 32) return moe_many<T, Kind, 8, float>(on, layer, X, Y, work, false);
  if (mean > 16) return moe_many<T, Kind, 4, float>(on, layer, X, Y, work, false);
  run_few<T, Kind>(on, layer, X, Y, work, false);
}

}  // namespace detail

/// What is to be told once the layer is done, in order.
using told_later = std::vector<std::function<void()>>;

namespace detail {

// Copies the first `width` columns of `from` now and shows them to `hook` later; nothing without a hook.
template <class T>
void tell(context& on, layer_hooks::rows_hook const& hook, device_matrix<T const> from, index_t width,
          told_later& later) {
  if (hook) later.push_back([&hook, rows = rows_on_host<T>(on, from, width)] { hook(rows->view()); });
}

}  // namespace detail

/// Adds all rows of X, as far as the sum is wide, each with its count.
template <half_precision T>
void add_rows(context& on, device_sums& kept, gram_sums::sum const& sum, std::span<float const> counts,
              device_matrix<T const> X) {
  if (!sum.wanted()) return;
  index_t const n = X.extent(0);
  auto const factors = on.scratch_for<float>(static_cast<index_t>(counts.size()));
  if (!counts.empty()) {
    expects_equal(static_cast<index_t>(counts.size()), n, "cuda::device_sums", "counts");
    copy_to_device(on.stream(), counts.data(), n, factors.data());
  }
  kept.add<T>(on, columns(X, 0, sum.H.extent(0)), n, {nullptr, counts.empty() ? nullptr : factors.data()}, sum.H);
}

/// The hooks of the first half.
template <half_precision T>
struct attention_watch {
  static constexpr bool active = true;
  context& on;
  layer_hooks const& hooks;
  told_later& later;
  index_t hidden = 0, context_width = 0;
  device_sums* kept = nullptr;  ///< takes hooks.sums

  void attention_input(device_matrix<T const> N) const { detail::tell<T>(on, hooks.attention_input, N, hidden, later); }
  void attention_context(device_matrix<T const> Z) const {
    detail::tell<T>(on, hooks.attention_context, Z, context_width, later);
    if (hooks.sums != nullptr) add_rows<T>(on, *kept, hooks.sums->attention_context, hooks.sums->counts, Z);
  }
};

/// The hooks of the second half. Experts run without their weights, which join when their outputs are added, so that
/// hooks see outputs as they are; sums then round differently from an unobserved layer's, by the last bits of a float.
template <half_precision T>
struct experts_watch {
  static constexpr bool active = true;
  context& on;
  layer_hooks const& hooks;
  decoder_layer const& source;  ///< lives until everything is told
  told_later& later;
  index_t hidden = 0;
  device_sums* kept = nullptr;  ///< takes hooks.sums; Y is then not made further than the sums need
  routing_on_device* routing = nullptr;  ///< takes the routing, and experts' rows stay in the workspace as hooks see them

  void experts(device_layer<T> const& layer, device_matrix<T const> X, device_matrix<float> Y,
               layer_workspace<T> const& work) const {
    detail::tell<T>(on, hooks.feed_forward_input, X, hidden, later);
    if (hooks.sums != nullptr) {
      add_rows<T>(on, *kept, hooks.sums->feed_forward_input, {}, X);
      if (!hooks.inside()) return;
    }
    if (!hooks.inside() && routing == nullptr) {
      forward_experts<T>(on, layer, X, Y, work);
    } else if (layer.routed) {
      routed(layer, X, Y, work);
    } else {
      every_token(layer, X, Y, work, hooks.dense_hidden, source.dense->width());
    }
    detail::tell<float>(on, hooks.feed_forward_output, as_const(Y), hidden, later);
  }

 private:
  using host_rows = std::shared_ptr<tensor<float, 2> const>;

  void every_token(device_layer<T> const& layer, device_matrix<T const> X, device_matrix<float> Y,
                   layer_workspace<T> const& work, layer_hooks::rows_hook const& hook, index_t width) const {
    auto const& one = *layer.every_token;
    one.kind == tile_kind::codes4 ? dense_mlp<T, tile_kind::codes4, float>(on, one.view, X, Y, work.every_token)
                                  : dense_mlp<T, detail::half_kind<T>, float>(on, one.view, X, Y, work.every_token);
    auto const H = as_const(device_matrix<T>(work.every_token.activations.data(), X.extent(0), one.view.width));
    detail::tell<T>(on, hook, H, width, later);
    if (hooks.sums != nullptr) add_rows<T>(on, *kept, hooks.sums->every_token_hidden, hooks.sums->counts, H);
  }

  // The experts' sums, on pairs that are grouped; those of hidden rows once they are made.
  void add_sums(moe_layer_view<T> const& view, device_matrix<T const> X, moe_workspace<T> const& room,
                device_matrix<float const> W, bool of_hidden) const {
    gram_sums const& sums = *hooks.sums;
    index_t const slots = view.rule.top_k, pairs = X.extent(0) * slots;
    auto const offsets = values_on_host(on.stream(), room.groups().offsets, view.experts + 1);
    auto const counts = on.scratch_for<float>(static_cast<index_t>(sums.counts.size()));
    if (!sums.counts.empty()) copy_to_device(on.stream(), sums.counts.data(), X.extent(0), counts.data());
    float const* const by_token = sums.counts.empty() ? nullptr : counts.data();
    auto const factors = on.scratch_for<float>(pairs);
    auto const tokens = on.scratch_for<std::int32_t>(pairs);
    std::int32_t const* const order = room.groups().pairs;
    for_each_element(on, 1, pairs, false, detail::token_of_pair{order, slots, device_matrix<std::int32_t>(tokens.data(), 1, pairs)});
    for (std::size_t e = 0; e < source.moe->experts.size(); ++e) {
      index_t const first = offsets[e], count = offsets[e + 1] - first;
      auto const& all = of_hidden ? sums.expert_hidden : sums.expert_input;
      if (count == 0 || e >= all.size() || !all[e].wanted() || source.moe->experts[e].is_novice()) continue;
      bool const scaled = all[e].weighted || by_token != nullptr;
      if (scaled)
        for_each_element(on, 1, count, false,
                         detail::row_factor{order + first, all[e].weighted ? W.data : nullptr, by_token, slots,
                                            device_matrix<float>(factors.data(), 1, count)});
      float const* const f = scaled ? factors.data() : nullptr;
      index_t const width = all[e].H.extent(0);
      if (of_hidden) {
        device_matrix<T const> const rows_of_all(room.activations.data(), pairs, view.width);
        kept->add<T>(on, columns(rows(rows_of_all, first, count), 0, width), count, {nullptr, f}, all[e].H);
      } else {
        kept->add<T>(on, columns(X, 0, width), count, {tokens.data() + first, f}, all[e].H);
      }
    }
  }
  // Rows that every expert met, and the squares of what they were multiplied by.
  void count_rows(index_t n, moe_layer_view<T> const& view, moe_workspace<T> const& room, host_rows const& weights) const {
    gram_sums const& sums = *hooks.sums;
    if (sums.tokens == nullptr) return;
    index_t const slots = view.rule.top_k;
    auto const offsets = values_on_host(on.stream(), room.groups().offsets, view.experts + 1);
    auto const order = values_on_host(on.stream(), room.groups().pairs, n * slots);
    for (std::size_t e = 0; e < source.moe->experts.size(); ++e) {
      if (source.moe->experts[e].is_novice()) continue;
      sums.tokens[e] += static_cast<double>(offsets[e + 1] - offsets[e]);
      if (sums.squares == nullptr) continue;
      bool const weighted = e < sums.expert_input.size() && sums.expert_input[e].weighted;
      for (index_t i = offsets[e]; i < offsets[e + 1]; ++i) {
        index_t const pair = order[static_cast<std::size_t>(i)], token = pair / slots;
        float const factor = (weighted ? (*weights)(token, pair % slots) : 1.0F) *
                             (sums.counts.empty() ? 1.0F : sums.counts[static_cast<std::size_t>(token)]);
        sums.squares[e] += static_cast<double>(factor) * static_cast<double>(factor);
      }
    }
  }

  void routed(device_layer<T> const& layer, device_matrix<T const> X, device_matrix<float> Y,
              layer_workspace<T> const& work) const {
    auto const& all = *layer.routed;
    auto const& view = all.view;
    moe_workspace<T> const& room = work.routed;
    check_moe_layer(view, X, room);
    index_t const n = X.extent(0), slots = view.rule.top_k, experts = view.experts, pairs = n * slots;
    auto const memory = on.scratch_for<float>(routing != nullptr ? 0 : 2 * n * experts + pairs);
    if (routing != nullptr) routing->make_room(n, experts, slots);
    auto const part = [&](device_buffer<float> routing_on_device::*kept_there, index_t first, index_t width) {
      return device_matrix<float>(routing != nullptr ? (routing->*kept_there).data() : memory.data() + first, n, width);
    };
    auto const L = part(&routing_on_device::logits, 0, experts), P = part(&routing_on_device::scores, n * experts, experts),
               W = part(&routing_on_device::weights, 2 * n * experts, slots);
    device_matrix<std::int32_t> const indices(room.indices.data(), n, slots);
    gemm<T, float>(on, 1.0F, X, transposed(view.router), 0.0F, L);
    route(on, as_const(L), view.rule, view.selection_bias, {indices, W, P}, view.kept);
    group_pairs(on, as_const(indices), experts, room.groups());
    if (routing != nullptr) {
      routing->routing = {as_const(P), as_const(indices), as_const(W)};
      routing->seen = true;
    }
    auto const host_weights = detail::rows_on_host<float>(on, as_const(W), slots);
    if (hooks.router_result)
      later.push_back([hook = &hooks.router_result, logits_seen = detail::rows_on_host<float>(on, as_const(L), experts),
                       scores_seen = detail::rows_on_host<float>(on, as_const(P), experts), host_weights,
                       chosen = values_on_host(on.stream(), room.indices.data(), pairs), n, slots] {
        (*hook)({logits_seen->view(), scores_seen->view(), matrix_view<std::int32_t const>(chosen.data(), n, slots),
                 host_weights->view()});
      });

    if (hooks.sums != nullptr) {
      count_rows(n, view, room, host_weights);
      add_sums(view, X, room, as_const(W), false);
      bool const of_hidden = std::any_of(hooks.sums->expert_hidden.begin(), hooks.sums->expert_hidden.end(),
                                         [](gram_sums::sum const& s) { return s.wanted(); });
      if (layer.every_token && hooks.sums->every_token_hidden.wanted())
        every_token(layer, X, Y, work, {}, source.moe->shared->width());
      if (!of_hidden) return;
    } else if (layer.every_token) {
      every_token(layer, X, Y, work, hooks.shared_hidden, source.moe->shared->width());
    } else {
      for_each_element(on, n, Y.extent(1), false, detail::set_element{0.0F, Y});
    }
    for_each_element(on, n, slots, false,
                     detail::set_element{1.0F, device_matrix<float>(room.factors.data(), n, slots)});
    auto const unweighted = on.scratch_for<float>(n * view.hidden);
    device_matrix<float> const sums(unweighted.data(), n, view.hidden);
    all.kind == tile_kind::codes4 ? detail::run_grouped<T, tile_kind::codes4>(on, view, X, sums, room)
                                  : detail::run_grouped<T, detail::half_kind<T>>(on, view, X, sums, room);
    if (hooks.sums != nullptr) return add_sums(view, X, room, as_const(W), true);
    for_each_element(on, n, Y.extent(1), false,
                     detail::add_weighted_slots{room.routed.data(), room.groups().position, W.data, slots, Y});
    if (all.novices.size() > 0)
      add_novices(on, room.indices.data(), W.data, slots, as_const(all.novices.matrix(experts, view.hidden)),
                  Y);
    if (hooks.expert_input || hooks.expert_hidden || hooks.expert_output) copy_experts(view, X, room, host_weights);
  }

  // Everything that the experts' hooks see, one copy for all experts; they are told one after another.
  void copy_experts(moe_layer_view<T> const& view, device_matrix<T const> X, moe_workspace<T> const& room,
                    host_rows const& weights) const {
    index_t const pairs = X.extent(0) * view.rule.top_k;
    host_rows inputs, inner, outputs;
    if (hooks.expert_input) inputs = detail::rows_on_host<T>(on, X, hidden);
    if (hooks.expert_hidden)
      inner = detail::rows_on_host<T>(on, as_const(device_matrix<T>(room.activations.data(), pairs, view.width)),
                                      view.width);
    if (hooks.expert_output)
      outputs = detail::rows_on_host<float>(on, as_const(device_matrix<float>(room.routed.data(), pairs, view.hidden)),
                                            hidden);
    later.push_back([inputs, inner, outputs, weights, told = &hooks, experts = &source.moe->experts,
                     offsets = values_on_host(on.stream(), room.groups().offsets, view.experts + 1),
                     order = values_on_host(on.stream(), room.groups().pairs, pairs)] {
      for (std::size_t e = 0; e < experts->size(); ++e)
        if (offsets[e + 1] > offsets[e])
          tell_expert(*told, static_cast<index_t>(e), (*experts)[e], offsets[e], offsets[e + 1] - offsets[e], order,
                      inputs, inner, outputs, *weights);
    });
  }

  static void tell_expert(layer_hooks const& told, index_t e, expert_weights const& expert, index_t first,
                          index_t count, std::vector<std::int32_t> const& order, host_rows const& inputs,
                          host_rows const& inner, host_rows const& outputs, tensor<float, 2> const& weights) {
    index_t const slots = weights.extent(1);
    std::vector<std::int32_t> tokens;
    std::vector<float> factors;
    for (index_t i = first; i < first + count; ++i) {
      index_t const pair = order[static_cast<std::size_t>(i)];
      tokens.push_back(static_cast<std::int32_t>(pair / slots));
      factors.push_back(weights(pair / slots, pair % slots));
    }
    expert_batch const batch{e, tokens, factors};
    if (expert.is_novice()) {
      if (!told.expert_output) return;
      tensor<float, 2> O(count, static_cast<index_t>(expert.novice.size()));
      for (index_t i = 0; i < count; ++i) std::copy(expert.novice.begin(), expert.novice.end(), &O(i, 0));
      return told.expert_output(batch, as_const(O.view()));
    }
    if (inputs) {
      tensor<float, 2> gathered(count, inputs->extent(1));
      for (index_t i = 0; i < count; ++i)
        std::copy_n(&(*inputs)(tokens[static_cast<std::size_t>(i)], 0), gathered.extent(1), &gathered(i, 0));
      told.expert_input(batch, as_const(gathered.view()));
    }
    if (inner) told.expert_hidden(batch, columns(rows(inner->view(), first, count), 0, expert.swiglu.width()));
    if (outputs) told.expert_output(batch, rows(outputs->view(), first, count));
  }
};

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
