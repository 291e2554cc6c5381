// Attention for one new token a sequence, bound by the bandwidth of the cache: the context is cut into chunks, a block
// each, and the block that finishes last adds the chunks up in their order.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/reduce.cuh>
#include <slimtrim/cuda/rotary.cuh>

#include <cmath>
#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// How the kernel is shaped.
struct attention_few_shape {
  static constexpr int warps = 4;
  static constexpr int threads = 32 * warps;
  static constexpr int chunk = 64;  ///< positions a block
  static constexpr int most_dim = 256;
};

/// Scratch of attention_few: made once for a number of sequences and a capacity.
struct attention_workspace {
  device_buffer<float> partial{};     ///< [sequences, heads, chunks, 2 + head_dim]: largest, sum, weighted values in the order of shared memory
  device_buffer<unsigned> tickets{};  ///< [sequences, heads], zero between calls
  index_t sequences = 0, heads = 0, capacity = 0, head_dim = 0;

  attention_workspace() = default;
  attention_workspace(context& on, index_t most_sequences, head_layout const& layout, index_t cache_capacity)
      : partial(most_sequences * layout.heads * ceil_div(cache_capacity, attention_few_shape::chunk) *
                (2 + layout.head_dim)),
        tickets(most_sequences * layout.heads),
        sequences(most_sequences),
        heads(layout.heads),
        capacity(cache_capacity),
        head_dim(layout.head_dim) {
    check(cudaMemsetAsync(tickets.data(), 0, sizeof(unsigned) * static_cast<std::size_t>(tickets.size()), on.stream()),
          "cuda::attention_workspace");
  }
};

namespace detail {

// Eight floats of a head that a lane works on lie as two times four, all first fours in front of all second ones: so the fours of
// eight lanes fill the 32 banks of shared memory, where eights in a row would meet in half of them.
[[nodiscard]] SLIMTRIM_HD constexpr int place_of_element(int element, int dim) {
  return element % 8 / 4 * (dim / 2) + element / 8 * 4 + element % 4;
}
[[nodiscard]] SLIMTRIM_HD constexpr int element_of_place(int place, int dim) {
  int const second = place / (dim / 2), within = place % (dim / 2);
  return within / 4 * 8 + second * 4 + within % 4;
}

// Adds up what each group of `lanes` lanes holds for each head, in a fixed order. Four heads go two ways twice, so that a lane ends with
// one of them: sums[0] of the head that is returned.
template <int Heads>
[[nodiscard]] __device__ __forceinline__ int sum_of_lanes(float (&sums)[Heads], int lane, int lanes) {
  static_assert(Heads == 1 || Heads == 4);
  int head = 0, left = lanes / 2;
  if constexpr (Heads == 4) {
    bool const later = (lane & left) != 0;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float const given = later ? sums[i] : sums[2 + i], kept = later ? sums[2 + i] : sums[i];
      sums[i] = kept + shuffle_xor(given, left);
    }
    left /= 2;
    bool const second = (lane & left) != 0;
    float const given = second ? sums[0] : sums[1], kept = second ? sums[1] : sums[0];
    sums[0] = kept + shuffle_xor(given, left);
    left /= 2;
    head = (later ? 2 : 0) + (second ? 1 : 0);
  }
  for (; left > 0; left /= 2) sums[0] += shuffle_xor(sums[0], left);
  return head;
}

// Grid: chunk, batch of Heads heads that share a key-value head, sequence.
template <half_precision T, int Heads>
__global__ void __launch_bounds__(attention_few_shape::threads, 6)
    attention_few_kernel(head_layout layout, device_matrix<float const> made, float const* frequencies,
                         cache_view<T> cache, std::int32_t const* before, float scale, float* partial,
                         unsigned* tickets, device_matrix<T> Z) {
  constexpr int chunk = attention_few_shape::chunk, threads = attention_few_shape::threads,
                warps = attention_few_shape::warps;
  alignas(16) __shared__ float weights[chunk][Heads];
  __shared__ bool is_last;
  int const thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  int const dim = static_cast<int>(layout.head_dim), half = dim / 2, eights = dim / 8, sharers = threads / eights;
  // Queries [Heads, dim], sums [sharers, Heads, dim], then this token's key and value.
  auto* const shared = reinterpret_cast<float*>(shared_memory());
  T* const new_key = reinterpret_cast<T*>(shared + Heads * dim * (1 + sharers));
  T* const new_value = new_key + dim;
  index_t const sequence = blockIdx.z, first_head = static_cast<index_t>(blockIdx.y) * Heads;
  index_t const group = layout.heads / layout.key_value_heads, key_column = first_head / group * layout.head_dim;
  let_later_work_begin();
  wait_for_earlier_work();
  int const position = before[sequence];
  if (position >= cache.capacity) return;  // the caller counts tokens; this only keeps memory whole
  int const chunks = position / chunk + 1, from = static_cast<int>(blockIdx.x) * chunk;
  if (static_cast<int>(blockIdx.x) >= chunks) return;
  bool const has_new = static_cast<int>(blockIdx.x) == chunks - 1;
  int const count = has_new ? position + 1 - from : chunk;
  float const* const row = made.data + sequence * made.stride(0);
  for (int i = thread; i < Heads * half; i += threads) {
    int const h = i / half, pair = i % half;
    float const* const x = row + (first_head + h) * dim + pair;
    float sine, cosine;
    sincosf(static_cast<float>(position) * frequencies[pair], &sine, &cosine);
    shared[h * dim + place_of_element(pair, dim)] = (x[0] * cosine - x[half] * sine) * scale;
    shared[h * dim + place_of_element(half + pair, dim)] = (x[half] * cosine + x[0] * sine) * scale;
  }
  if (has_new) {
    // One batch of the group writes the cache; all use what they made themselves.
    bool const writes = first_head % group == 0;
    index_t const place = (sequence * cache.capacity + position) * cache.width + key_column;
    for (int pair = thread; pair < half; pair += threads) {
      float const* const x = row + layout.key_column + key_column + pair;
      float sine, cosine;
      sincosf(static_cast<float>(position) * frequencies[pair], &sine, &cosine);
      new_key[pair] = T(x[0] * cosine - x[half] * sine);
      new_key[half + pair] = T(x[half] * cosine + x[0] * sine);
      if (writes) {
        cache.keys[place + pair] = new_key[pair];
        cache.keys[place + half + pair] = new_key[half + pair];
      }
    }
    for (int i = thread; i < dim; i += threads) {
      new_value[i] = T(row[layout.value_column + key_column + i]);
      if (writes) cache.values[place + i] = new_value[i];
    }
  }
  sync_block();

  // Scores: a lane owns eight columns, whose queries it keeps, so 8, 16 or 32 lanes work on a position.
  T const* const keys = cache.keys + (sequence * cache.capacity + from) * cache.width + key_column;
  int const lanes = eights <= 8 ? 8 : (eights <= 16 ? 16 : 32), mine = lane % lanes, at_once = 32 / lanes;
  float queries[Heads][8] = {};
  if (mine < eights)
#pragma unroll
    for (int h = 0; h < Heads; ++h)
#pragma unroll
      for (int second = 0; second < 2; ++second) {
        auto const q = *reinterpret_cast<words4 const*>(shared + h * dim + second * half + 4 * mine);
#pragma unroll
        for (int i = 0; i < 4; ++i) queries[h][4 * second + i] = bits_as<float>(q.word[i]);
      }
  for (int first = warp * at_once; first < count; first += warps * at_once) {
    int const p = first + lane / lanes;
    float sums[Heads] = {};
    if (p < count && mine < eights) {
      words4 const k = has_new && p == count - 1
                           ? reinterpret_cast<words4 const*>(new_key)[mine]
                           : load_made_before(reinterpret_cast<words4 const*>(keys + p * cache.width) + mine);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        auto const element = static_cast<float>(element_of_pair<T>(k.word[i / 2], i % 2 != 0));
#pragma unroll
        for (int h = 0; h < Heads; ++h) sums[h] += queries[h][i] * element;
      }
    }
    int const head = sum_of_lanes(sums, lane, lanes);
    if (p < count && mine % (lanes / Heads) == 0) weights[p][head] = sums[0];
  }
  sync_block();

  // Weights relative to the chunk's largest score; a warp a head.
  index_t const stride = 2 + dim, all_chunks = gridDim.x;
  for (int h = warp; h < Heads; h += warps) {
    float largest = -INFINITY;
    for (int p = lane; p < count; p += 32) largest = fmaxf(largest, weights[p][h]);
    for (int mask = 16; mask > 0; mask /= 2) largest = fmaxf(largest, shuffle_xor(largest, mask));
    float sum = 0;
    for (int p = lane; p < count; p += 32) {
      float const w = expf(weights[p][h] - largest);
      weights[p][h] = w;
      sum += w;
    }
    sum = sum_of_warp(sum);
    if (lane == 0) {
      float* const to = partial + ((sequence * layout.heads + first_head + h) * all_chunks + blockIdx.x) * stride;
      to[0] = largest;
      to[1] = sum;
    }
  }
  sync_block();

  // Values: a thread owns eight columns and every `sharers`-th position.
  int const share = thread / eights, column = thread % eights;
  T const* const values = cache.values + (sequence * cache.capacity + from) * cache.width + key_column;
  float sums[Heads][8] = {};
  if (share < sharers) {
    for (int p = share; p < count; p += sharers) {
      words4 const v = has_new && p == count - 1
                           ? reinterpret_cast<words4 const*>(new_value)[column]
                           : load_made_before(reinterpret_cast<words4 const*>(values + p * cache.width) + column);
      float of_heads[Heads];
      if constexpr (Heads == 4) {
        auto const four = *reinterpret_cast<words4 const*>(weights[p]);
#pragma unroll
        for (int h = 0; h < Heads; ++h) of_heads[h] = bits_as<float>(four.word[h]);
      } else {
        of_heads[0] = weights[p][0];
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        auto const element = static_cast<float>(element_of_pair<T>(v.word[i / 2], i % 2 != 0));
#pragma unroll
        for (int h = 0; h < Heads; ++h) sums[h][i] += of_heads[h] * element;
      }
    }
    float* const to = shared + Heads * dim + share * Heads * dim;
#pragma unroll
    for (int h = 0; h < Heads; ++h)
#pragma unroll
      for (int second = 0; second < 2; ++second) {
        words4 four;
#pragma unroll
        for (int i = 0; i < 4; ++i) four.word[i] = bits_as<std::uint32_t>(sums[h][4 * second + i]);
        store_to_shared(reinterpret_cast<words4*>(to + h * dim + second * half + 4 * column), four);
      }
  }
  sync_block();
  for (int i = thread; i < Heads * dim; i += threads) {
    float sum = 0;
    for (int s = 0; s < sharers; ++s) sum += shared[Heads * dim * (1 + s) + i];
    index_t const head = first_head + i / dim;
    partial[((sequence * layout.heads + head) * all_chunks + blockIdx.x) * stride + 2 + i % dim] = sum;
  }

  sync_block();
  unsigned* const ticket = tickets + sequence * layout.heads + first_head;
  if (thread == 0) is_last = draw_ticket(ticket) == static_cast<unsigned>(chunks) - 1;
  sync_block();
  if (!is_last) return;
  for (int i = thread; i < Heads * dim; i += threads) {
    index_t const head = first_head + i / dim;
    float const* const parts = partial + (sequence * layout.heads + head) * all_chunks * stride;
    float largest = -INFINITY, sum = 0, value = 0;
    for (int c = 0; c < chunks; ++c) largest = fmaxf(largest, load_fresh(parts + c * stride));
    for (int c = 0; c < chunks; ++c) {
      float const factor = expf(load_fresh(parts + c * stride) - largest);
      sum += factor * load_fresh(parts + c * stride + 1);
      value += factor * load_fresh(parts + c * stride + 2 + i % dim);
    }
    Z(sequence, head * dim + element_of_place(i % dim, dim)) = T(value / sum);
  }
  for (index_t j = layout.heads * layout.head_dim + thread; blockIdx.y == 0 && j < Z.extent(1); j += threads)
    Z(sequence, j) = T(0.0F);
  if (thread == 0) *ticket = 0;
}

}  // namespace detail

/// Rotates query and key of one new token a sequence, appends its key and value to the cache, and
/// Z[s, h] = sum_j softmax_j(q[s, h] . K[j, h / group] / sqrt(head_dim)) V[j, h / group], j = 0 .. before[s].
///
/// made: [sequences, columns], what the query-key-value product left; frequencies: [head_dim / 2], as
/// rotate_and_append; before: [sequences] in device memory, the tokens in front of this one; Z: [sequences, >= heads *
/// head_dim], zero behind the heads. Keys and values are rounded to T, everything else is float; chunks of 64 positions
/// in order, so results do not vary from run to run. The grid covers the whole capacity, and blocks behind the present
/// length leave at once: one captured launch serves every length. Beyond the capacity nothing is written. head_dim: a
/// multiple of 8 up to 256.
template <half_precision T>
void attention_few(context& on, head_layout const& layout, device_matrix<float const> made, float const* frequencies,
                   cache_view<T> cache, std::int32_t const* before, attention_workspace const& work,
                   device_matrix<T> Z) {
  using shape = attention_few_shape;
  index_t const sequences = made.extent(0), group = layout.heads / layout.key_value_heads;
  expects(layout.head_dim % 8 == 0 && layout.head_dim <= shape::most_dim && cache.width % 8 == 0, "cuda::attention_few",
          "head_dim: expected a multiple of 8 up to 256");
  check_head_layout(layout, made, cache);
  expects(sequences <= work.sequences && layout.heads == work.heads && layout.head_dim == work.head_dim &&
              cache.capacity == work.capacity,
          "cuda::attention_few", "workspace: made for another shape");
  expects_equal(Z.extent(0), sequences, "cuda::attention_few", "rows of the result");
  expects(sequences <= 65535, "cuda::attention_few", "sequences: expected at most 65535");
  if (sequences == 0) return;
  auto const run = [&]<int Heads>() {
    auto const dim = static_cast<std::size_t>(layout.head_dim);
    std::size_t const sharers = shape::threads / (dim / 8);
    launch(on.stream(),
           {dim3(blocks_for(ceil_div(cache.capacity, shape::chunk)), blocks_for(layout.heads / Heads),
                 blocks_for(sequences)),
            shape::threads, sizeof(float) * Heads * dim * (1 + sharers) + 2 * sizeof(T) * dim, on.overlaps()},
           detail::attention_few_kernel<T, Heads>, layout, made, frequencies, cache, before,
           static_cast<float>(1.0 / std::sqrt(static_cast<double>(layout.head_dim))), work.partial.data(),
           work.tickets.data(), Z);
  };
  group % 4 == 0 ? run.template operator()<4>() : run.template operator()<1>();
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
