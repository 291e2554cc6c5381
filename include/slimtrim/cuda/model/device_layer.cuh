// The weights of one decoder layer in device memory, and what all layers of a model share.
#pragma once

#include <slimtrim/cuda/moe_view.cuh>
#include <slimtrim/cuda/rotary.cuh>
#include <slimtrim/cuda/upload.cuh>
#include <slimtrim/model/decoder_layer.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>
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

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
