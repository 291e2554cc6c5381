// The work of taking tokens through one decoder layer.
//
// The residual stream and every sum are float; what a product reads is rounded to T. What a half of a layer adds to the
// stream is added by the normalisation that comes next, so the stream is whole after `settle` only.
#pragma once

#include <slimtrim/cuda/attention_few.cuh>
#include <slimtrim/cuda/attention_many.cuh>
#include <slimtrim/cuda/dense_mlp.cuh>
#include <slimtrim/cuda/model/device_layer.cuh>
#include <slimtrim/cuda/moe_front.cuh>
#include <slimtrim/cuda/moe_layer.cuh>
#include <slimtrim/cuda/novices.cuh>
#include <slimtrim/cuda/rms_norm.cuh>

#include <algorithm>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

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
  device_buffer<unsigned> ticket{};  ///< zero between calls
  bool pending = false;              ///< `added` is still to be added to the stream

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
    ticket = device_buffer<unsigned>(1);
    check(cudaMemsetAsync(ticket.data(), 0, sizeof(unsigned), on.stream()), "cuda::layer_workspace");
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
  auto const Z = work.attended.matrix(n, shape.context_columns);
  if (of.rows == 1) {
    attention_few<T>(on, shape.heads, as_const(made), shape.frequencies.data(), cache, of.first, attention, Z);
  } else {
    auto const Q = work.queries.matrix(n, shape.context_columns);
    rotate_and_append<T>(on, shape.heads, as_const(made), shape.frequencies.data(), of, Q, cache);
    attention_many<T>(on, shape.heads, as_const(Q), cache, of, Z);
  }
  if constexpr (Watch::active) watch.attention_context(as_const(Z));
  detail::multiply<T, float>(on, layer.output.view, as_const(Z), work.Y(n));
  work.pending = true;
}

namespace detail {

template <half_precision T>
void run_every_token(context& on, device_layer<T> const& layer, device_matrix<T const> X, device_matrix<float> Y,
                     layer_workspace<T> const& work) {
  if (!layer.every_token) return;
  auto const& one = *layer.every_token;
  one.kind == tile_kind::codes4 ? dense_mlp<T, tile_kind::codes4, float>(on, one.view, X, Y, work.every_token)
                                : dense_mlp<T, half_kind<T>, float>(on, one.view, X, Y, work.every_token);
}

template <half_precision T>
void run_novices(context& on, device_experts<T> const& all, device_matrix<float> Y, moe_workspace<T> const& work) {
  if (all.novices.size() > 0)
    add_novices(on, work.indices.data(), work.factors.data(), all.view.rule.top_k,
                as_const(all.novices.matrix(all.view.experts, all.view.hidden)), Y);
}

// The experts on pairs that are grouped already, few tokens each.
template <half_precision T, tile_kind Kind>
void run_few(context& on, moe_layer_view<T> const& layer, device_matrix<T const> X, device_matrix<float> Y,
             moe_workspace<T> const& work, bool accumulate) {
  bool const one_tile = X.extent(0) <= 8 || X.extent(0) * layer.rule.top_k <= 4 * layer.experts;
  one_tile ? moe_few<T, Kind, 1, float>(on, layer, X, Y, work, accumulate)
           : moe_few<T, Kind, 2, float>(on, layer, X, Y, work, accumulate);
}

// Whether normalising, routing and grouping are one launch.
template <half_precision T>
[[nodiscard]] bool takes_front(device_layer<T> const& layer, index_t n) {
  return layer.routed && n <= most_front_tokens && n * layer.routed->view.rule.top_k <= 16 * layer.routed->view.experts;
}

}  // namespace detail

/// The experts of a layer on the normalised rows `X`, into Y.
template <half_precision T>
void forward_experts(context& on, device_layer<T> const& layer, device_matrix<T const> X, device_matrix<float> Y,
                     layer_workspace<T> const& work) {
  detail::run_every_token(on, layer, X, Y, work);
  if (!layer.routed) return;
  auto const& all = *layer.routed;
  bool const accumulate = layer.every_token.has_value();
  all.kind == tile_kind::codes4
      ? moe_layer<T, tile_kind::codes4, float>(on, all.view, X, Y, work.routed, accumulate)
      : moe_layer<T, detail::half_kind<T>, float>(on, all.view, X, Y, work.routed, accumulate);
  detail::run_novices(on, all, Y, work.routed);
}

/// The second half: stream += F(norm(stream)), nothing where it was dropped.
template <half_precision T, class Watch = no_watch>
void forward_feed_forward(context& on, layer_shape const& shape, device_layer<T> const& layer, index_t n,
                          layer_workspace<T>& work, Watch const& watch = {}) {
  if (!layer.feeds()) return;
  if constexpr (!Watch::active) {
    if (detail::takes_front(layer, n)) {
      auto const& all = *layer.routed;
      device_matrix<float const> added;
      if (work.pending) added = as_const(work.Y(n));
      moe_front<T>(on, all.view, work.X(n), added, as_const(layer.feed_forward_norm.view()), shape.epsilon, work.N(n),
                   work.routed, work.ticket.data());
      auto const X = as_const(work.N(n));
      detail::run_every_token(on, layer, X, work.Y(n), work);
      bool const accumulate = layer.every_token.has_value();
      all.kind == tile_kind::codes4
          ? detail::run_few<T, tile_kind::codes4>(on, all.view, X, work.Y(n), work.routed, accumulate)
          : detail::run_few<T, detail::half_kind<T>>(on, all.view, X, work.Y(n), work.routed, accumulate);
      detail::run_novices(on, all, work.Y(n), work.routed);
      work.pending = true;
      return;
    }
  }
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
