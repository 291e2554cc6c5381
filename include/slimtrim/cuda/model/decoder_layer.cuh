// One decoder layer in device memory: its weights, and the work of taking tokens through it.
//
// The residual stream and every sum are float; what a product reads is rounded to T. What a half of a layer adds to the
// stream is added by the normalisation that comes next, so the stream is whole after `settle` only.
#pragma once

#include <slimtrim/cuda/attention_few.cuh>
#include <slimtrim/cuda/attention_many.cuh>
#include <slimtrim/cuda/dense_mlp.cuh>
#include <slimtrim/cuda/moe_layer.cuh>
#include <slimtrim/cuda/novices.cuh>
#include <slimtrim/cuda/rms_norm.cuh>
#include <slimtrim/cuda/upload.cuh>
#include <slimtrim/model/decoder_layer.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// What all layers of a model share: extents, padded to whole tiles, and the frequencies of the rotary embedding.
struct layer_shape {
  index_t hidden = 0;           ///< as in the model
  index_t padded_hidden = 0;    ///< columns of the stream
  index_t context_columns = 0;  ///< of queries and of the attention's result
  index_t made_columns = 0;     ///< of the query-key-value product
  head_layout heads{};
  double epsilon = 0;
  device_buffer<float> frequencies{};

  layer_shape() = default;
  layer_shape(context& on, model_config const& config)
      : hidden(config.hidden),
        padded_hidden(padded_extent(config.hidden)),
        context_columns(padded_extent(config.heads * config.head_dim)),
        epsilon(config.rms_epsilon),
        frequencies(upload_floats(on, rotary_frequencies(config.head_dim, config.rope_theta, config.rope_factor))) {
    index_t const keys = padded_extent(config.key_value_heads * config.head_dim);
    heads = {config.heads, config.key_value_heads, config.head_dim, context_columns, context_columns + keys};
    made_columns = context_columns + 2 * keys;
    expects(config.head_dim % 8 == 0 && config.head_dim <= 128, "cuda::layer_shape",
            "head_dim: expected a multiple of 8 up to 128");
    expects(config.key_value_heads > 0 && config.heads % config.key_value_heads == 0, "cuda::layer_shape",
            "heads: expected a multiple of key_value_heads");
  }
};

/// Experts in device memory: routed ones, or the one that every token takes.
template <half_precision T>
struct device_experts {
  moe_layer_view<T> view{};
  tile_kind kind = tile_kind::codes4;
  std::vector<device_tiles> gate_up{}, down{};
  device_buffer<tile_weight_view> views{};
  device_buffer<T> router{};
  device_buffer<float> bias{};
  device_buffer<float> novices{};  ///< [experts, hidden], zero rows for others; empty: there are none

  [[nodiscard]] index_t bytes() const {
    index_t sum = static_cast<index_t>(sizeof(T)) * router.size() + 4 * (bias.size() + novices.size());
    for (auto const* const all : {&gate_up, &down})
      for (device_tiles const& each : *all) sum += each.bytes();
    return sum;
  }
};

namespace detail {

template <half_precision T>
inline constexpr tile_kind half_kind = std::is_same_v<T, bfloat16> ? tile_kind::bfloat16 : tile_kind::float16;

// The swiglus of a layer side by side, all in one kind: 4-bit where all are, else 16-bit. A novice has none of its own.
template <half_precision T>
device_experts<T> upload_swiglus(context& on, layer_shape const& shape, std::vector<swiglu_weights const*> const& all) {
  device_experts<T> made;
  index_t width = tile::block_columns;
  bool packed = true;
  for (swiglu_weights const* const each : all) {
    if (each == nullptr) continue;
    width = std::max(width, padded_extent(each->width()));
    packed = packed && stay_packed_together(each->gate.view, each->up.view) && stays_packed(each->down.view);
  }
  made.kind = packed ? tile_kind::codes4 : half_kind<T>;
  std::vector<tile_weight_view> views(2 * all.size());
  device_tiles none, none_down;
  for (std::size_t e = 0; e < all.size(); ++e) {
    swiglu_weights const* const w = all[e];
    if (w != nullptr) {
      made.gate_up.push_back(upload_gate_up<T>(on, w->gate.view, w->up.view, width, !packed));
      made.down.push_back(upload_tiles<T>(on, w->down.view, shape.hidden, !packed, width));
      views[e] = made.gate_up.back().view;
      views[all.size() + e] = made.down.back().view;
    } else {
      if (none.words.size() == 0) {
        none = zero_tiles<T>(on, 2 * width, shape.padded_hidden, made.kind);
        none_down = zero_tiles<T>(on, shape.padded_hidden, width, made.kind);
      }
      views[e] = none.view;
      views[all.size() + e] = none_down.view;
    }
  }
  if (none.words.size() > 0) {
    made.gate_up.push_back(std::move(none));
    made.down.push_back(std::move(none_down));
  }
  made.views = device_buffer<tile_weight_view>(static_cast<index_t>(views.size()));
  copy_to_device(on.stream(), views.data(), made.views.size(), made.views.data());
  made.view.experts = static_cast<index_t>(all.size());
  made.view.hidden = shape.padded_hidden;
  made.view.width = width;
  made.view.gate_up = made.views.data();
  made.view.down = made.views.data() + all.size();
  made.view.rule.top_k = 1;
  return made;
}

template <half_precision T>
device_experts<T> upload_moe(context& on, layer_shape const& shape, moe_weights const& weights) {
  std::vector<swiglu_weights const*> all;
  bool novices = false;
  for (expert_weights const& expert : weights.experts) {
    all.push_back(expert.is_novice() ? nullptr : &expert.swiglu);
    novices = novices || expert.is_novice();
  }
  device_experts<T> made = upload_swiglus<T>(on, shape, all);
  index_t const experts = made.view.experts;
  made.view.rule = weights.rule;
  made.router = upload_rows<T>(on, weights.router.view, shape.padded_hidden);
  made.view.router = as_const(made.router.matrix(experts, shape.padded_hidden));
  if (!weights.selection_bias.empty()) {
    made.bias = upload_floats(on, weights.selection_bias);
    made.view.selection_bias = as_const(made.bias.view());
  }
  if (novices) {
    std::vector<float> rows(static_cast<std::size_t>(experts * shape.padded_hidden), 0.0F);
    for (std::size_t e = 0; e < weights.experts.size(); ++e)
      std::copy(weights.experts[e].novice.begin(), weights.experts[e].novice.end(),
                rows.begin() + static_cast<std::ptrdiff_t>(e) * shape.padded_hidden);
    made.novices = upload_floats(on, rows);
  }
  return made;
}

}  // namespace detail

/// A layer's weights in device memory; absent parts were dropped.
template <half_precision T>
struct device_layer {
  std::vector<device_tiles> query_key_value{};  ///< one stack, or three; empty: no attention
  device_tiles output{};
  device_buffer<float> attention_norm{}, feed_forward_norm{};
  std::optional<device_experts<T>> every_token{};  ///< the dense part, or the shared experts
  std::optional<device_experts<T>> routed{};

  device_layer() = default;
  /// Uploads. Kinds as upload.cuh; the experts of a layer stay packed where all of them can.
  device_layer(context& on, layer_shape const& shape, decoder_layer const& from) {
    if (from.attention) {
      attention_weights const& w = *from.attention;
      std::array<weight_view, 3> const parts{w.query.view, w.key.view, w.value.view};
      query_key_value = upload_stack<T>(on, parts);
      output = upload_tiles<T>(on, w.output.view, shape.hidden);
      attention_norm = upload_floats(on, w.norm);
    }
    feed_forward_norm = upload_floats(on, from.feed_forward_norm);
    if (from.dense) every_token = detail::upload_swiglus<T>(on, shape, {&*from.dense});
    if (from.moe) {
      if (from.moe->shared) every_token = detail::upload_swiglus<T>(on, shape, {&*from.moe->shared});
      routed = detail::upload_moe<T>(on, shape, *from.moe);
    }
  }
  [[nodiscard]] bool attends() const { return !query_key_value.empty(); }
  [[nodiscard]] bool feeds() const { return every_token || routed; }
  [[nodiscard]] index_t bytes() const {
    index_t sum = 4 * (attention_norm.size() + feed_forward_norm.size()) + output.bytes();
    for (device_tiles const& each : query_key_value) sum += each.bytes();
    if (every_token) sum += every_token->bytes();
    return routed ? sum + routed->bytes() : sum;
  }
};

/// The largest layer that a workspace has to serve.
struct layer_extents {
  index_t experts = 0, top_k = 0, width = 0, dense_width = 0;
  template <half_precision T>
  void include(device_layer<T> const& layer) {
    if (layer.every_token) dense_width = std::max(dense_width, layer.every_token->view.width);
    if (!layer.routed) return;
    experts = std::max(experts, layer.routed->view.experts);
    top_k = std::max(top_k, layer.routed->view.rule.top_k);
    width = std::max(width, layer.routed->view.width);
  }
};

/// Scratch of a layer for up to `tokens` tokens, and the stream that passes through the layers. Used by one stream of
/// work.
template <half_precision T>
struct layer_workspace {
  index_t tokens = 0, padded_hidden = 0;
  device_buffer<float> stream{}, added{}, made{};
  device_buffer<T> normalised{}, queries{}, attended{};
  moe_workspace<T> routed{}, every_token{};
  bool pending = false;  ///< `added` is still to be added to the stream

  layer_workspace() = default;
  layer_workspace(context& on, layer_shape const& shape, layer_extents const& most, index_t most_tokens)
      : tokens(most_tokens),
        padded_hidden(shape.padded_hidden),
        stream(most_tokens * shape.padded_hidden),
        added(most_tokens * shape.padded_hidden),
        made(most_tokens * shape.made_columns),
        normalised(most_tokens * shape.padded_hidden),
        queries(most_tokens * shape.context_columns),
        attended(most_tokens * shape.context_columns) {
    if (most.experts > 0)
      routed = moe_workspace<T>(on, most_tokens, most.top_k, most.experts, most.width, shape.padded_hidden);
    if (most.dense_width > 0) every_token = dense_workspace<T>(on, most_tokens, most.dense_width, shape.padded_hidden);
  }
  [[nodiscard]] device_matrix<float> X(index_t n) const { return stream.matrix(n, padded_hidden); }
  [[nodiscard]] device_matrix<float> Y(index_t n) const { return added.matrix(n, padded_hidden); }
  [[nodiscard]] device_matrix<T> N(index_t n) const { return normalised.matrix(n, padded_hidden); }
};

/// Watches nothing; what watches has `active` set and the members that are called below.
struct no_watch {
  static constexpr bool active = false;
};

namespace detail {

struct add_element {
  device_matrix<float> X;
  device_matrix<float const> added;
  SLIMTRIM_HD void operator()(index_t i, index_t j) const { X(i, j) += added(i, j); }
};

template <half_precision T, class Result>
void multiply(context& on, tile_weight_view const& w, device_matrix<T const> X, device_matrix<Result> Y) {
  w.kind == tile_kind::codes4 ? product<T, tile_kind::codes4, Result>(on, w, X, Y)
                              : product<T, half_kind<T>, Result>(on, w, X, Y);
}

// N = norm of the whole stream.
template <half_precision T>
void normalise(context& on, layer_shape const& shape, layer_workspace<T>& work, index_t n,
               device_buffer<float> const& weight) {
  device_matrix<float const> added;
  if (work.pending) added = as_const(work.Y(n));
  add_and_normalise<T>(on, work.X(n), added, as_const(weight.view()), shape.epsilon, work.N(n));
  work.pending = false;
}

}  // namespace detail

/// Adds what is still to be added to the stream of the first `n` rows.
template <half_precision T>
void settle(context& on, layer_workspace<T>& work, index_t n) {
  if (work.pending)
    for_each_element(on, n, work.padded_hidden, false, detail::add_element{work.X(n), as_const(work.Y(n))});
  work.pending = false;
}

/// The first half: stream += output(attention(norm(stream))), nothing where attention was dropped. `n` rows of whole
/// sequences.
template <half_precision T, class Watch = no_watch>
void forward_attention(context& on, layer_shape const& shape, device_layer<T> const& layer, index_t n, sequence_rows of,
                       cache_view<T> cache, attention_workspace const& attention, layer_workspace<T>& work,
                       Watch const& watch = {}) {
  if (!layer.attends()) return;
  detail::normalise(on, shape, work, n, layer.attention_norm);
  if constexpr (Watch::active) watch.attention_input(as_const(work.N(n)));
  auto const made = work.made.matrix(n, shape.made_columns);
  index_t column = 0;
  for (device_tiles const& part : layer.query_key_value) {
    detail::multiply<T, float>(on, part.view, as_const(work.N(n)), columns(made, column, part.view.rows));
    column += part.view.rows;
  }
  auto const Q = work.queries.matrix(n, shape.context_columns), Z = work.attended.matrix(n, shape.context_columns);
  rotate_and_append<T>(on, shape.heads, as_const(made), shape.frequencies.data(), of, Q, cache);
  of.rows == 1 ? attention_few<T>(on, shape.heads, as_const(Q), cache, of.first, attention, Z)
               : attention_many<T>(on, shape.heads, as_const(Q), cache, of, Z);
  if constexpr (Watch::active) watch.attention_context(as_const(Z));
  detail::multiply<T, float>(on, layer.output.view, as_const(Z), work.Y(n));
  work.pending = true;
}

/// The experts of a layer on the normalised rows `X`, into Y.
template <half_precision T>
void forward_experts(context& on, device_layer<T> const& layer, device_matrix<T const> X, device_matrix<float> Y,
                     layer_workspace<T> const& work) {
  if (layer.every_token) {
    auto const& one = *layer.every_token;
    one.kind == tile_kind::codes4 ? dense_mlp<T, tile_kind::codes4, float>(on, one.view, X, Y, work.every_token)
                                  : dense_mlp<T, detail::half_kind<T>, float>(on, one.view, X, Y, work.every_token);
  }
  if (!layer.routed) return;
  auto const& all = *layer.routed;
  bool const accumulate = layer.every_token.has_value();
  all.kind == tile_kind::codes4
      ? moe_layer<T, tile_kind::codes4, float>(on, all.view, X, Y, work.routed, accumulate)
      : moe_layer<T, detail::half_kind<T>, float>(on, all.view, X, Y, work.routed, accumulate);
  if (all.novices.size() > 0)
    add_novices(on, work.routed.indices.data(), work.routed.factors.data(), all.view.rule.top_k,
                as_const(all.novices.matrix(all.view.experts, all.view.hidden)), Y);
}

/// The second half: stream += F(norm(stream)), nothing where it was dropped.
template <half_precision T, class Watch = no_watch>
void forward_feed_forward(context& on, layer_shape const& shape, device_layer<T> const& layer, index_t n,
                          layer_workspace<T>& work, Watch const& watch = {}) {
  if (!layer.feeds()) return;
  detail::normalise(on, shape, work, n, layer.feed_forward_norm);
  if constexpr (Watch::active) {
    watch.experts(layer, as_const(work.N(n)), work.Y(n), work);
  } else {
    forward_experts<T>(on, layer, as_const(work.N(n)), work.Y(n), work);
  }
  work.pending = true;
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
