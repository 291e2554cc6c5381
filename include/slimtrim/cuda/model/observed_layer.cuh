// What the hooks of observer.hpp see, copied to the host while a layer runs on the device.
#pragma once

#include <slimtrim/cuda/blas.cuh>
#include <slimtrim/cuda/model/decoder_layer.cuh>
#include <slimtrim/model/layer_hooks.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// The first `width` columns as floats on the host.
template <class T>
[[nodiscard]] tensor<float, 2> rows_on_host(context& on, device_matrix<T const> from, index_t width) {
  index_t const n = from.extent(0);
  tensor<float, 2> to(n, width);
  auto const dense = on.scratch_for<float>(n * width);
  device_matrix<float> const copy(dense.data(), n, width);
  copy_elements<T, float>(on, columns(from, 0, width), copy);
  copy_to_host(on.stream(), dense.data(), n * width, to.view().data);
  return to;
}

template <class T>
[[nodiscard]] std::vector<T> values_on_host(context& on, T const* from, index_t count) {
  std::vector<T> to(static_cast<std::size_t>(count));
  copy_to_host(on.stream(), from, count, to.data());
  return to;
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
  mean <= 4 ? moe_few<T, Kind, 1, float>(on, layer, X, Y, work, false)
            : moe_few<T, Kind, 2, float>(on, layer, X, Y, work, false);
}

}  // namespace detail

/// The hooks of the first half.
template <half_precision T>
struct attention_watch {
  static constexpr bool active = true;
  context& on;
  layer_hooks const& hooks;
  index_t hidden = 0, context_width = 0;

  void attention_input(device_matrix<T const> N) const {
    if (hooks.attention_input) hooks.attention_input(as_const(detail::rows_on_host<T>(on, N, hidden).view()));
  }
  void attention_context(device_matrix<T const> Z) const {
    if (hooks.attention_context)
      hooks.attention_context(as_const(detail::rows_on_host<T>(on, Z, context_width).view()));
  }
};

/// The hooks of the second half. Experts run without their weights, which join when their outputs are added, so that
/// hooks see outputs as they are; sums then round differently from an unobserved layer's, by the last bits of a float.
template <half_precision T>
struct experts_watch {
  static constexpr bool active = true;
  context& on;
  layer_hooks const& hooks;
  decoder_layer const& source;
  index_t hidden = 0;

  void experts(device_layer<T> const& layer, device_matrix<T const> X, device_matrix<float> Y,
               layer_workspace<T> const& work) const {
    if (hooks.feed_forward_input) hooks.feed_forward_input(as_const(detail::rows_on_host<T>(on, X, hidden).view()));
    if (!hooks.inside()) {
      forward_experts<T>(on, layer, X, Y, work);
    } else if (layer.routed) {
      routed(layer, X, Y, work);
    } else {
      every_token(layer, X, Y, work, hooks.dense_hidden, source.dense->width());
    }
    if (hooks.feed_forward_output)
      hooks.feed_forward_output(as_const(detail::rows_on_host<float>(on, as_const(Y), hidden).view()));
  }

 private:
  void every_token(device_layer<T> const& layer, device_matrix<T const> X, device_matrix<float> Y,
                   layer_workspace<T> const& work, layer_hooks::rows_hook const& hook, index_t width) const {
    auto const& one = *layer.every_token;
    one.kind == tile_kind::codes4 ? dense_mlp<T, tile_kind::codes4, float>(on, one.view, X, Y, work.every_token)
                                  : dense_mlp<T, detail::half_kind<T>, float>(on, one.view, X, Y, work.every_token);
    if (!hook) return;
    auto const H = as_const(device_matrix<T>(work.every_token.activations.data(), X.extent(0), one.view.width));
    hook(as_const(detail::rows_on_host<T>(on, H, width).view()));
  }

  void routed(device_layer<T> const& layer, device_matrix<T const> X, device_matrix<float> Y,
              layer_workspace<T> const& work) const {
    auto const& all = *layer.routed;
    auto const& view = all.view;
    moe_workspace<T> const& room = work.routed;
    check_moe_layer(view, X, room);
    index_t const n = X.extent(0), slots = view.rule.top_k, experts = view.experts, pairs = n * slots;
    auto const logits = on.scratch_for<float>(n * experts), scores = on.scratch_for<float>(n * experts),
               weights = on.scratch_for<float>(pairs);
    device_matrix<float> const L(logits.data(), n, experts), P(scores.data(), n, experts), W(weights.data(), n, slots);
    device_matrix<std::int32_t> const indices(room.indices.data(), n, slots);
    gemm<T, float>(on, 1.0F, X, transposed(view.router), 0.0F, L);
    route(on, as_const(L), view.rule, view.selection_bias, {indices, W, P}, view.kept);
    group_pairs(on, as_const(indices), experts, room.groups());

    tensor<float, 2> const host_logits = detail::rows_on_host<float>(on, as_const(L), experts);
    tensor<float, 2> const host_scores = detail::rows_on_host<float>(on, as_const(P), experts);
    tensor<float, 2> const host_weights = detail::rows_on_host<float>(on, as_const(W), slots);
    auto const chosen = detail::values_on_host(on, room.indices.data(), pairs);
    matrix_view<std::int32_t const> const host_indices(chosen.data(), n, slots);
    if (hooks.router_result)
      hooks.router_result({host_logits.view(), host_scores.view(), host_indices, host_weights.view()});

    if (layer.every_token) {
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
    for_each_element(on, n, Y.extent(1), false,
                     detail::add_weighted_slots{room.routed.data(), room.groups().position, weights.data(), slots, Y});
    if (all.novices.size() > 0)
      add_novices(on, room.indices.data(), weights.data(), slots, as_const(all.novices.matrix(experts, view.hidden)),
                  Y);
    if (hooks.expert_input || hooks.expert_hidden || hooks.expert_output)
      tell_experts(view, X, room, host_weights, pairs);
  }

  void tell_experts(moe_layer_view<T> const& view, device_matrix<T const> X, moe_workspace<T> const& room,
                    tensor<float, 2> const& weights, index_t pairs) const {
    auto const offsets = detail::values_on_host(on, room.groups().offsets, view.experts + 1);
    auto const order = detail::values_on_host(on, room.groups().pairs, pairs);
    index_t const slots = view.rule.top_k;
    tensor<float, 2> inputs;
    if (hooks.expert_input) inputs = detail::rows_on_host<T>(on, X, hidden);
    for (index_t e = 0; e < view.experts; ++e) {
      index_t const first = offsets[static_cast<std::size_t>(e)],
                    count = offsets[static_cast<std::size_t>(e) + 1] - first;
      if (count == 0) continue;
      std::vector<std::int32_t> tokens;
      std::vector<float> factors;
      for (index_t i = first; i < first + count; ++i) {
        index_t const pair = order[static_cast<std::size_t>(i)];
        tokens.push_back(static_cast<std::int32_t>(pair / slots));
        factors.push_back(weights(pair / slots, pair % slots));
      }
      expert_batch const batch{e, tokens, factors};
      expert_weights const& expert = source.moe->experts[static_cast<std::size_t>(e)];
      if (expert.is_novice()) {
        if (!hooks.expert_output) continue;
        tensor<float, 2> O(count, hidden);
        for (index_t i = 0; i < count; ++i) std::copy(expert.novice.begin(), expert.novice.end(), &O(i, 0));
        hooks.expert_output(batch, as_const(O.view()));
        continue;
      }
      if (hooks.expert_input) {
        tensor<float, 2> gathered(count, hidden);
        for (index_t i = 0; i < count; ++i)
          std::copy_n(&inputs(tokens[static_cast<std::size_t>(i)], 0), hidden, &gathered(i, 0));
        hooks.expert_input(batch, as_const(gathered.view()));
      }
      if (hooks.expert_hidden) {
        auto const H = as_const(device_matrix<T>(room.activations.data() + first * view.width, count, view.width));
        hooks.expert_hidden(batch, as_const(detail::rows_on_host<T>(on, H, expert.swiglu.width()).view()));
      }
      if (hooks.expert_output) {
        auto const O = as_const(device_matrix<float>(room.routed.data() + first * view.hidden, count, view.hidden));
        hooks.expert_output(batch, as_const(detail::rows_on_host<float>(on, O, hidden).view()));
      }
    }
  }
};

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
