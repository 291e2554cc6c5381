// The forward pass: embedding, decoder layers with observer hooks, logits. One code for every family, every kind of
// weight, whole windows and single tokens.
//
// Nothing here keeps state but the caches and the workspace that the caller passes, so windows can run on one thread
// each with a serial backend.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/linalg/product.hpp>
#include <slimtrim/model/accelerator.hpp>
#include <slimtrim/model/attention.hpp>
#include <slimtrim/model/decoder_layer.hpp>
#include <slimtrim/model/feed_forward.hpp>
#include <slimtrim/model/kv_cache.hpp>
#include <slimtrim/model/model_config.hpp>
#include <slimtrim/model/moe.hpp>
#include <slimtrim/model/observer.hpp>
#include <slimtrim/model/rms_norm.hpp>
#include <slimtrim/model/rope.hpp>
#include <slimtrim/model/workspace.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

namespace slimtrim {
inline namespace v0 {

/// Consecutive rows of X that belong to one text. Without a cache the rows see each other only, and `first_position`
/// gives their rotary positions; with a cache they come after the `first_position` tokens that it holds, and see those as
/// it stores them (rows at position 0 see each other unrounded).
struct token_sequence {
  index_t rows = 0;
  index_t first_position = 0;
  kv_cache* cache = nullptr;
};

/// X[t] = embedding[tokens[t]]. X: [tokens, hidden]. Throws `error` for an id outside the vocabulary.
inline void embed(model_ends const& ends, std::span<std::uint32_t const> tokens, matrix_view<float> X) {
  expects_equal(X.extent(0), static_cast<index_t>(tokens.size()), "embed", "rows of the result");
  index_t const vocabulary = ends.embedding.rows();
  for (index_t t = 0; t < X.extent(0); ++t) {
    std::uint32_t const id = tokens[static_cast<std::size_t>(t)];
    if (static_cast<index_t>(id) >= vocabulary)
      throw error("embed: token " + std::to_string(t) + ": expected an id below " + std::to_string(vocabulary) +
                  ", found " + std::to_string(id));
    expand_rows(ends.embedding.view, static_cast<index_t>(id), rows(X, t, 1));
  }
}

namespace detail {

inline void add_rows(executor* run_on, matrix_view<float> X, matrix_view<float const> Y) {
  constexpr index_t rows_a_piece = 32;
  parallel_for(run_on, ceil_div(X.extent(0), rows_a_piece), [&](index_t piece) {
    index_t const last = std::min(X.extent(0), (piece + 1) * rows_a_piece), n = X.extent(1);
    for (index_t t = piece * rows_a_piece; t < last; ++t) {
      float* const x = X.data + t * X.stride(0);
      float const* const y = Y.data + t * Y.stride(0);
      for (index_t j = 0; j < n; ++j) x[j] += y[j];
    }
  });
}

inline void copy_rows(matrix_view<float const> from, matrix_view<float> to) {
  for (index_t t = 0; t < from.extent(0); ++t)
    std::copy_n(from.data + t * from.stride(0), from.extent(1), to.data + t * to.stride(0));
}

inline void check_sequences(std::span<token_sequence const> sequences, index_t tokens, index_t sliding_window) {
  index_t sum = 0;
  for (token_sequence const& each : sequences) {
    expects(each.rows >= 0 && each.first_position >= 0, "forward", "sequences: expected counts >= 0");
    index_t const seen = each.rows + (each.cache != nullptr ? each.first_position : 0);
    if (sliding_window > 0 && seen > sliding_window)
      throw error("forward: sequences of " + std::to_string(seen) + " tokens: expected at most sliding_window = " +
                  std::to_string(sliding_window));
    sum += each.rows;
  }
  expects_equal(sum, tokens, "forward", "rows of all sequences together");
}

// The rows of every sequence where all have as many, start at position 0 and have no cache; else 0.
[[nodiscard]] inline index_t common_window(std::span<token_sequence const> sequences) {
  index_t const window = sequences.empty() ? 0 : sequences.front().rows;
  for (token_sequence const& each : sequences)
    if (each.rows != window || each.first_position != 0 || each.cache != nullptr) return 0;
  return window;
}

}  // namespace detail

/// x' = x + output(attention(norm(x))): the first half of a layer, in place; nothing where attention was dropped.
/// X: [T, hidden] with contiguous rows. `layer` is the number in caches and hooks.
template <host_backend B, class Observer = no_observer>
void forward_attention(B const& backend, model_config const& config, decoder_layer const& weights, index_t layer,
                       std::type_identity_t<matrix_view<float>> X, std::span<token_sequence const> sequences,
                       forward_workspace& work, Observer&& observer = {}) {
  index_t const tokens = X.extent(0);
  detail::check_sequences(sequences, tokens, config.sliding_window);
  bool lent = false;
  if constexpr (has_accelerator<B>) {
    index_t const window = detail::common_window(sequences);
    lent = weights.attention && window > 0 && backend.lent() != nullptr;
    if (lent)
      with_hooks(*backend.lent(), observer, layer, [&](layer_hooks const& hooks) {
        backend.lent()->attention(config, weights, X, window, hooks);
      });
  }
  if (weights.attention && !lent) {
    attention_weights const& w = *weights.attention;
    attention_shape const shape{config.heads, config.key_value_heads, config.head_dim};
    auto const N = work.normalised.shape(tokens, X.extent(1));
    auto const Q = work.query.shape(tokens, w.query.rows());
    auto const K = work.key.shape(tokens, w.key.rows()), V = work.value.shape(tokens, w.value.rows());
    auto const Z = work.context.shape(tokens, w.query.rows());
    rms_norm(backend, X, w.norm, config.rms_epsilon, N);
    SLIMTRIM_NOTIFY(observer, attention_input, layer, as_const(N));
    products(backend, N, std::array{&w.query.view, &w.key.view, &w.value.view}, std::array{Q, K, V});
    work.positions.clear();
    for (token_sequence const& each : sequences)
      for (index_t i = 0; i < each.rows; ++i) work.positions.push_back(each.first_position + i);
    work.rotary.prepare(work.positions, config.head_dim, config.rope_theta, config.rope_factor);
    work.rotary.rotate(backend.run_on(), Q);
    work.rotary.rotate(backend.run_on(), K);
    index_t first = 0;
    for (token_sequence const& each : sequences) {
      auto const k = rows(K, first, each.rows), v = rows(V, first, each.rows);
      auto const q = as_const(rows(Q, first, each.rows));
      auto const z = rows(Z, first, each.rows);
      if (each.cache != nullptr) {
        each.cache->store(backend.run_on(), layer, each.first_position, k, v);
      }
      if (each.cache != nullptr && each.first_position > 0) {
        causal_attention(backend, shape, q, each.cache->view(layer, each.first_position + each.rows),
                         each.first_position, z);
      } else {
        causal_attention(backend, shape, q, k, v, 0, z);
      }
      first += each.rows;
    }
    SLIMTRIM_NOTIFY(observer, attention_context, layer, as_const(Z));
    auto const Y = work.output.shape(tokens, X.extent(1));
    product(backend, Z, w.output.view, Y);
    detail::add_rows(backend.run_on(), X, Y);
  }
  SLIMTRIM_NOTIFY(observer, attention_residual, layer, as_const(X));
}

/// x = x' + F(norm(x')), F the layer's dense or MoE part: the second half of a layer, in place; nothing where it was
/// dropped. X: [T, hidden] with contiguous rows.
template <host_backend B, class Observer = no_observer>
void forward_feed_forward(B const& backend, model_config const& config, decoder_layer const& weights, index_t layer,
                          std::type_identity_t<matrix_view<float>> X, forward_workspace& work,
                          Observer&& observer = {}) {
  if (!weights.dense && !weights.moe) return;
  if constexpr (has_accelerator<B>) {
    if (X.extent(0) > 0 && backend.lent() != nullptr) {
      with_hooks(*backend.lent(), observer, layer, [&](layer_hooks const& hooks) {
        backend.lent()->feed_forward(config, weights, X, hooks);
      });
      return;
    }
  }
  auto const N = work.normalised.shape(X.extent(0), X.extent(1));
  auto const Y = work.output.shape(X.extent(0), X.extent(1));
  rms_norm(backend, X, weights.feed_forward_norm, config.rms_epsilon, N);
  SLIMTRIM_NOTIFY(observer, feed_forward_input, layer, as_const(N));
  if (weights.moe) {
    moe_layer(backend, *weights.moe, layer, N, Y, work, observer);
  } else {
    swiglu(backend, N, *weights.dense, Y, work, [&](matrix_view<float const> H) {
      static_cast<void>(H);
      SLIMTRIM_NOTIFY(observer, dense_hidden, layer, H);
    });
  }
  SLIMTRIM_NOTIFY(observer, feed_forward_output, layer, as_const(Y));
  detail::add_rows(backend.run_on(), X, Y);
}

/// One decoder layer, in place. X: [T, hidden] with contiguous rows; `sequences` says which rows belong together.
/// Caches are written but not advanced: the caller does that after the last layer. Accumulates as the backend's products.
/// Deterministic for any executor. Throws `error` when shapes disagree or a cache is full.
template <host_backend B, class Observer = no_observer>
void forward_layer(B const& backend, model_config const& config, decoder_layer const& weights, index_t layer,
                   std::type_identity_t<matrix_view<float>> X, std::span<token_sequence const> sequences,
                   forward_workspace& work, Observer&& observer = {}) try {
  SLIMTRIM_NOTIFY(observer, block_input, layer, as_const(X));
  bool lent = false;
  if constexpr (has_accelerator<B>) {
    index_t const window = detail::common_window(sequences);
    lent = window > 0 && backend.lent() != nullptr;
    if (lent) {
      detail::check_sequences(sequences, X.extent(0), config.sliding_window);
      backend.lent()->layer(config, weights, X, window, hooks_of(observer, layer));
    }
  }
  if (!lent) {
    forward_attention(backend, config, weights, layer, X, sequences, work, observer);
    forward_feed_forward(backend, config, weights, layer, X, work, observer);
  }
  SLIMTRIM_NOTIFY(observer, block_output, layer, as_const(X));
} catch (numeric_error const& e) {
  // A weight that is not finite shows where its layer's output is read first.
  throw numeric_error("layer " + std::to_string(layer) + " (weights of this layer or of the one before): " + e.what());
}

/// The same for one window that starts at position 0 and needs no cache.
template <host_backend B, class Observer = no_observer>
void forward_layer(B const& backend, model_config const& config, decoder_layer const& weights, index_t layer,
                   std::type_identity_t<matrix_view<float>> X, forward_workspace& work, Observer&& observer = {}) {
  token_sequence const window[1] = {{X.extent(0), 0, nullptr}};
  forward_layer(backend, config, weights, layer, X, std::span<token_sequence const>(window), work, observer);
}

/// logits = norm(X) headᵀ for the given rows of the last residual stream. X: [n, hidden], logits: [n, vocabulary];
/// pass the rows that are wanted, in blocks where all of them would not fit.
template <host_backend B>
void final_logits(B const& backend, model_config const& config, model_ends const& ends,
                  std::type_identity_t<matrix_view<float const>> X, std::type_identity_t<matrix_view<float>> logits,
                  forward_workspace& work) {
  if constexpr (has_accelerator<B>) {
    if (X.extent(0) > 0 && backend.lent() != nullptr) {
      backend.lent()->logits(config, ends, X, logits);
      return;
    }
  }
  auto const N = work.normalised.shape(X.extent(0), X.extent(1));
  rms_norm(backend, X, ends.final_norm, config.rms_epsilon, N);
  product(backend, N, ends.head.view, logits);
}

}  // namespace v0
}  // namespace slimtrim
