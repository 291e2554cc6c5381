// Causal grouped-query attention (arXiv 2305.13245), blocked, with the softmax formed block by block.
//
// A block of queries meets the keys in blocks; running maximum and sum rescale what is there already (Milakov and
// Gimelshein 2018, arXiv 1805.02867). No matrix of T x T scores is ever stored.
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/error.hpp>
#include <slimtrim/core/executor.hpp>
#include <slimtrim/model/elementwise.hpp>
#include <slimtrim/model/kv_view.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <limits>
#include <type_traits>
#include <utility>

namespace slimtrim {
inline namespace v0 {

/// How heads are laid out and how far a query sees.
struct attention_shape {
  index_t heads = 0;
  index_t key_value_heads = 0;
  index_t head_dim = 0;
};

/// A backend with an attention of its own for few queries over a cache.
template <class B>
concept fuses_cached_attention = requires(B const& b, attention_shape shape, matrix_view<float const> Q,
                                          kv_view const& kept, matrix_view<float> Z) {
  { b.attend_few(shape, Q, kept, index_t{}, Z) } -> std::same_as<bool>;
};

namespace detail {

inline constexpr index_t attention_query_block = 32, attention_key_block = 128;

/// The running state of one block of queries of one head.
struct online_softmax {
  float scores[attention_query_block * attention_key_block];
  float largest[attention_query_block];
  float sum[attention_query_block];

  /// Turns scores of `count` keys of query `i` into exp(score - maximum so far) and returns the factor by which what
  /// was added before must shrink.
  float absorb(index_t i, index_t count, index_t width) {
    float* const s = scores + i * attention_key_block;
    float block_largest = largest[i];
    for (index_t j = 0; j < count; ++j) block_largest = std::max(block_largest, s[j]);
    float const shrink = largest[i] == block_largest ? 1.0F : exp_float(largest[i] - block_largest);
    for (index_t j = 0; j < count; ++j) s[j] = exp_float(s[j] - block_largest);
    for (index_t j = count; j < width; ++j) s[j] = 0;
    constexpr index_t lanes = 8;
    float parts[lanes] = {};
    index_t j = 0;
    for (; j + lanes <= count; j += lanes)
      for (index_t lane = 0; lane < lanes; ++lane) parts[lane] += s[j + lane];
    for (; j < count; ++j) parts[0] += s[j];
    float block_sum = 0;
    for (float const part : parts) block_sum += part;
    sum[i] = sum[i] * shrink + block_sum;
    largest[i] = block_largest;
    return shrink;
  }
};

/// Keys and values in two matrices.
struct attention_matrices {
  matrix_view<float const> K, V;
  index_t head_dim;

  // What one piece of the work reads through.
  struct reader {
    attention_matrices const& from;
    [[nodiscard]] std::pair<matrix_view<float const>, matrix_view<float const>> block(index_t head, index_t first,
                                                                                      index_t count) {
      index_t const dim = from.head_dim;
      return {columns(rows(from.K, first, count), head * dim, dim),
              columns(rows(from.V, first, count), head * dim, dim)};
    }
  };
  [[nodiscard]] reader read() const { return {*this}; }
};

/// Keys and values in a cache, expanded a block at a time.
struct attention_cache {
  kv_view const& from;

  struct reader {
    kv_view const& from;
    tensor<float, 2> K, V;
    [[nodiscard]] std::pair<matrix_view<float const>, matrix_view<float const>> block(index_t head, index_t first,
                                                                                      index_t count) {
      auto const k = rows(K.view(), 0, count), v = rows(V.view(), 0, count);
      from.expand(head, first, k, v);
      return {as_const(k), as_const(v)};
    }
  };
  [[nodiscard]] reader read() const {
    return {from, tensor<float, 2>(attention_key_block, from.head_dim),
            tensor<float, 2>(attention_key_block, from.head_dim)};
  }
};

template <host_backend B, class Source>
void attend_in_blocks(B const& backend, attention_shape shape, matrix_view<float const> Q, Source const& source,
                      index_t first_position, matrix_view<float> Z) {
  index_t const tokens = Q.extent(0), dim = shape.head_dim;
  constexpr index_t query_block = attention_query_block, key_block = attention_key_block;
  index_t const blocks = ceil_div(tokens, query_block), group = shape.heads / shape.key_value_heads;
  float const scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(dim)));
  parallel_for(backend.run_on(), shape.heads * blocks, [&](index_t piece) {
    // Late blocks see the most keys; taking them first keeps the threads busy to the end.
    index_t const head = piece % shape.heads, block = blocks - 1 - piece / shape.heads;
    index_t const first = block * query_block, count = std::min(query_block, tokens - first);
    auto const q = columns(rows(Q, first, count), head * dim, dim);
    auto const z = columns(rows(Z, first, count), head * dim, dim);
    auto reader = source.read();
    online_softmax state;
    for (index_t i = 0; i < count; ++i) {
      state.largest[i] = -std::numeric_limits<float>::infinity();
      state.sum[i] = 0;
      for (index_t d = 0; d < dim; ++d) z(i, d) = 0;
    }
    index_t const visible = first_position + first + count;
    for (index_t from = 0; from < visible; from += key_block) {
      index_t const width = std::min(key_block, visible - from);
      auto const [k, v] = reader.block(head / group, from, width);
      index_t const pitch[2] = {key_block, 1}, extents[2] = {count, width};
      matrix_view<float> const scores(state.scores, extents, pitch);
      backend.template gemm<float>(scale, q, transposed(k), 0.0F, scores);
      for (index_t i = 0; i < count; ++i) {
        index_t const seen = std::clamp<index_t>(first_position + first + i + 1 - from, 0, width);
        float const shrink = state.absorb(i, seen, width);
        if (shrink != 1.0F)
          for (index_t d = 0; d < dim; ++d) z(i, d) *= shrink;
      }
      backend.template gemm<float>(1.0F, as_const(scores), v, 1.0F, z);
    }
    for (index_t i = 0; i < count; ++i) {
      float const inverse = 1.0F / state.sum[i];
      for (index_t d = 0; d < dim; ++d) z(i, d) *= inverse;
    }
  });
}

inline void check_attention(attention_shape shape, matrix_view<float const> Q, matrix_view<float> Z) {
  expects_equal(Q.extent(1), shape.heads * shape.head_dim, "causal_attention", "columns of the queries");
  expects(Z.extent(0) == Q.extent(0) && Z.extent(1) == Q.extent(1), "causal_attention", "shape of the result");
  expects(shape.key_value_heads > 0 && shape.heads % shape.key_value_heads == 0, "causal_attention",
          "heads: expected a multiple of key_value_heads");
}

}  // namespace detail

/// Z[t, h] = sum_j softmax_j(Q[t, h] . K[j, h / group] / sqrt(head_dim)) V[j, h / group], j = 0 .. first_position + t.
///
/// Q, Z: [T, heads * head_dim]; K, V: [first_position + T, key_value_heads * head_dim]: row j is position j of the same
/// sequence, rotated already; group = heads / key_value_heads. Rows contiguous. Scores and sums in float, blocks of 32
/// queries and 128 keys in fixed order. Cost 4 T (first_position + T / 2) heads head_dim operations. Deterministic for
/// any executor. Throws `error` when extents disagree.
template <host_backend B>
void causal_attention(B const& backend, attention_shape shape, std::type_identity_t<matrix_view<float const>> Q,
                      std::type_identity_t<matrix_view<float const>> K,
                      std::type_identity_t<matrix_view<float const>> V, index_t first_position,
                      std::type_identity_t<matrix_view<float>> Z) {
  detail::check_attention(shape, Q, Z);
  expects_equal(K.extent(0), first_position + Q.extent(0), "causal_attention", "rows of the keys");
  expects_equal(V.extent(0), K.extent(0), "causal_attention", "rows of the values");
  expects_equal(K.extent(1), shape.key_value_heads * shape.head_dim, "causal_attention", "columns of the keys");
  expects_equal(V.extent(1), K.extent(1), "causal_attention", "columns of the values");
  detail::attend_in_blocks(backend, shape, Q, detail::attention_matrices{K, V, shape.head_dim}, first_position, Z);
}

/// The same over what a cache holds: `kept` has first_position + T rows. A backend with a member `attend_few`, which
/// says whether it took the call, takes over for few queries.
template <host_backend B>
void causal_attention(B const& backend, attention_shape shape, std::type_identity_t<matrix_view<float const>> Q,
                      kv_view const& kept, index_t first_position, std::type_identity_t<matrix_view<float>> Z) {
  detail::check_attention(shape, Q, Z);
  expects_equal(kept.rows, first_position + Q.extent(0), "causal_attention", "rows of the cache");
  expects_equal(kept.heads, shape.key_value_heads, "causal_attention", "heads of the cache");
  expects_equal(kept.head_dim, shape.head_dim, "causal_attention", "head_dim of the cache");
  if constexpr (fuses_cached_attention<B>) {
    if (backend.attend_few(shape, Q, kept, first_position, Z)) return;
  }
  detail::attend_in_blocks(backend, shape, Q, detail::attention_cache{kept}, first_position, Z);
}

}  // namespace v0
}  // namespace slimtrim
