// Rotary position embedding of queries and keys, and the append to the cache of keys and values, in one pass over what
// the fused query-key-value product left.
#pragma once

#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/words.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Keys and values of one layer: row (sequence, position) of both begins at element (sequence * capacity + position) *
/// width.
template <half_precision T>
struct cache_view {
  T* keys = nullptr;
  T* values = nullptr;
  index_t capacity = 0;
  index_t width = 0;  ///< key_value_heads * head_dim
};

/// Rows of activations by sequence: row t belongs to sequence t / rows, at position first[t / rows] + t % rows.
struct sequence_rows {
  std::int32_t const* first = nullptr;  ///< [sequences], in device memory: tokens that the cache held before
  index_t rows = 1;
};

/// How heads lie in the rows that the query-key-value product made.
struct head_layout {
  index_t heads = 0;
  index_t key_value_heads = 0;
  index_t head_dim = 0;
  index_t key_column = 0;  ///< first column of the keys; queries begin at 0
  index_t value_column = 0;
};

/// theta^(-2j / head_dim) / factor, j < head_dim / 2, rounded to float as the host's rotary_table does.
[[nodiscard]] inline std::vector<float> rotary_frequencies(index_t head_dim, double theta, double factor) {
  expects(head_dim > 0 && head_dim % 2 == 0, "cuda::rotary_frequencies", "head_dim: expected an even number");
  std::vector<float> frequencies;
  for (index_t j = 0; j < head_dim / 2; ++j)
    frequencies.push_back(static_cast<float>(
        1.0 / (std::pow(theta, 2.0 * static_cast<double>(j) / static_cast<double>(head_dim)) * factor)));
  return frequencies;
}

/// Throws `error` unless rows of `made` hold queries, keys and values as `heads` says and the cache is as wide.
template <half_precision T>
void check_head_layout(head_layout const& heads, device_matrix<float const> made, cache_view<T> cache) {
  expects(heads.head_dim > 0 && heads.head_dim % 2 == 0, "cuda::head_layout", "head_dim: expected an even number");
  expects_equal(cache.width, heads.key_value_heads * heads.head_dim, "cuda::head_layout", "width of the cache");
  expects(made.extent(1) >= heads.value_column + cache.width && heads.key_column >= heads.heads * heads.head_dim &&
              heads.value_column >= heads.key_column + cache.width && made.stride(1) == 1,
          "cuda::head_layout", "made: expected rows of queries, keys and values");
}

namespace detail {

inline constexpr unsigned rotary_threads = 128;

// One block a token. Threads take pairs (j, j + half) of query and key heads, then pairs of neighbours of the values.
template <half_precision T>
__global__ void __launch_bounds__(rotary_threads, 8)
    rotate_and_append(head_layout heads, device_matrix<float const> made, float const* frequencies, sequence_rows of,
                      device_matrix<T> Q, cache_view<T> cache) {
  index_t const token = blockIdx.x, sequence = token / of.rows, position = of.first[sequence] + token % of.rows;
  if (position >= cache.capacity) return;  // the caller counts tokens; this only keeps memory whole
  index_t const half = heads.head_dim / 2, all = heads.heads + heads.key_value_heads;
  float const* const from = made.data + token * made.stride(0);
  T* const q = Q.data + token * Q.stride(0);
  T* const k = cache.keys + (sequence * cache.capacity + position) * cache.width;
  T* const v = cache.values + (sequence * cache.capacity + position) * cache.width;
  for (index_t i = threadIdx.x; i < all * half; i += rotary_threads) {
    index_t const head = i / half, j = i - head * half;
    bool const is_key = head >= heads.heads;
    index_t const at = (is_key ? head - heads.heads : head) * heads.head_dim + j;
    float const* const x = from + (is_key ? heads.key_column : 0) + at;
    float const angle = static_cast<float>(position) * frequencies[j];
    float sine, cosine;
    sincosf(angle, &sine, &cosine);
    float const a = x[0], b = x[half];
    T* const to = (is_key ? k : q) + at;
    to[0] = T(a * cosine - b * sine);
    to[half] = T(b * cosine + a * sine);
  }
  for (index_t j = threadIdx.x; j < cache.width; j += rotary_threads) v[j] = T(from[heads.value_column + j]);
  for (index_t j = heads.heads * heads.head_dim + threadIdx.x; j < Q.extent(1); j += rotary_threads) q[j] = T(0.0F);
}

}  // namespace detail

/// Rotates queries into Q and keys into the cache, and copies values there, all rounded to T: (a, b) of a pair (j, j +
/// dim / 2) becomes (a cos - b sin, b cos + a sin) at angle position * frequencies[j], in float.
///
/// made: [T, columns], the rows of the query-key-value product; frequencies: [head_dim / 2] in device memory; Q: [T, >=
/// heads * head_dim], zero behind the heads. Rows beyond the cache's capacity write nothing: the caller counts tokens.
template <half_precision T>
void rotate_and_append(context& on, head_layout const& heads, device_matrix<float const> made, float const* frequencies,
                       sequence_rows of, device_matrix<T> Q, cache_view<T> cache) {
  check_head_layout(heads, made, cache);
  expects(Q.extent(0) == made.extent(0) && Q.extent(1) >= heads.heads * heads.head_dim && Q.stride(1) == 1,
          "cuda::rotate_and_append", "Q: expected a row for every token");
  expects(of.rows > 0 && made.extent(0) % of.rows == 0, "cuda::rotate_and_append", "rows: expected whole sequences");
  launch(on.stream(), {dim3(blocks_for(made.extent(0))), detail::rotary_threads, 0}, detail::rotate_and_append<T>,
         heads, made, frequencies, of, Q, cache);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
