// Attention of a few queries over the keys and values of one head, which are read once for every four queries.
//
// Sixteen keys lie side by side, so their scores are sums down the head's dimension with no sum across lanes; the
// weighted values are sums down the positions.

#if defined(SLIMTRIM_SIMD_TARGET_ATTEND_TOGGLE) == defined(HWY_TARGET_TOGGLE)
#ifdef SLIMTRIM_SIMD_TARGET_ATTEND_TOGGLE
#undef SLIMTRIM_SIMD_TARGET_ATTEND_TOGGLE
#else
#define SLIMTRIM_SIMD_TARGET_ATTEND_TOGGLE
#endif

#include <slimtrim/simd/target/lanes.hpp>

HWY_BEFORE_NAMESPACE();
namespace slimtrim {
inline namespace v0 {
namespace simd {
namespace HWY_NAMESPACE {

/// exp(x) as exp_float of model/elementwise.hpp gives it, for x <= 0.
HWY_INLINE floats exp_of_negative(floats const& x) {
  floats const bounded = larger(x, broadcast(-87.0F));
  floats const shifted = multiply_add(bounded, broadcast(1.44269504F), broadcast(12582912.0F));
  floats const n = subtract(shifted, broadcast(12582912.0F));
  floats r = multiply_add(n, broadcast(-0.693359375F), bounded);
  r = multiply_add(n, broadcast(2.12194440e-4F), r);
  floats p = broadcast(1.0F / 5040);
  p = multiply_add(p, r, broadcast(1.0F / 720));
  p = multiply_add(p, r, broadcast(1.0F / 120));
  p = multiply_add(p, r, broadcast(1.0F / 24));
  p = multiply_add(p, r, broadcast(1.0F / 6));
  p = multiply_add(p, r, broadcast(0.5F));
  p = multiply_add(p, r, broadcast(1.0F));
  p = multiply_add(p, r, broadcast(1.0F));
  return multiply(p, as_floats(left<23>(add(as_words(shifted), 127U - 0x4B400000U))));
}

/// Scores of all keys for `Queries` queries, `Blocks` blocks of keys at a time.
template <class T, int Queries, int Blocks>
HWY_INLINE void scores_of(key_value_head const& head, index_t block, float const* q, index_t q_stride, float scale,
                          float* scores, index_t score_stride) {
  constexpr int halves = static_cast<int>(key_positions) / lanes;
  T const* keys = static_cast<T const*>(head.keys) + block * head.key_stride;
  floats sum[std::size_t{Queries}][std::size_t{Blocks}][std::size_t{halves}];
  SLIMTRIM_UNROLL for (int i = 0; i < Queries; ++i) {
    SLIMTRIM_UNROLL for (int b = 0; b < Blocks; ++b) {
      SLIMTRIM_UNROLL for (int h = 0; h < halves; ++h) sum[i][b][h] = zero_floats();
    }
  }
  for (index_t d = 0; d < head.dim; ++d) {
    floats key[std::size_t{Blocks}][std::size_t{halves}];
    SLIMTRIM_UNROLL for (int b = 0; b < Blocks; ++b) {
      SLIMTRIM_UNROLL for (int h = 0; h < halves; ++h) key[b][h] = load(keys + b * head.key_stride + h * lanes);
    }
    fetch_ahead(reinterpret_cast<std::byte const*>(keys) + bytes_ahead, 1);
    keys += key_positions;
    SLIMTRIM_UNROLL for (int i = 0; i < Queries; ++i) {
      floats const query = broadcast(q[i * q_stride + d]);
      SLIMTRIM_UNROLL for (int b = 0; b < Blocks; ++b) {
        SLIMTRIM_UNROLL for (int h = 0; h < halves; ++h) sum[i][b][h] = multiply_add(key[b][h], query, sum[i][b][h]);
      }
    }
  }
  SLIMTRIM_UNROLL for (int b = 0; b < Blocks; ++b) {
    SLIMTRIM_UNROLL for (int h = 0; h < halves; ++h) {
      floats factor = broadcast(scale);
      if (head.key_scales != nullptr)
        factor = multiply(factor, load(head.key_scales + (block + b) * head.key_scale_stride + h * lanes));
      SLIMTRIM_UNROLL for (int i = 0; i < Queries; ++i)
          store(multiply(sum[i][b][h], factor), scores + i * score_stride + (block + b) * key_positions + h * lanes);
    }
  }
}

/// Turns the scores of one query into exp(score - largest); returns their sum. Places beyond `rows` become zero.
HWY_INLINE float soften(float* scores, index_t rows) {
  index_t const whole = round_up(rows, key_positions);
  for (index_t j = rows; j < whole; ++j) scores[j] = scores[0];
  float all[lanes];
  floats most = load(static_cast<float const*>(scores));
  for (index_t j = lanes; j < whole; j += lanes) most = larger(most, load(static_cast<float const*>(scores + j)));
  store(most, all);
  float largest = all[0];
  for (float const each : all) largest = each > largest ? each : largest;
  for (index_t j = 0; j < whole; j += lanes)
    store(exp_of_negative(subtract(load(static_cast<float const*>(scores + j)), broadcast(largest))), scores + j);
  for (index_t j = rows; j < whole; ++j) scores[j] = 0;
  floats sums = zero_floats();
  for (index_t j = 0; j < whole; j += lanes) sums = add(sums, load(static_cast<float const*>(scores + j)));
  store(sums, all);
  float sum = 0;
  for (float const each : all) sum += each;
  return sum;
}

/// z[i][first ...] = factor[i] * sum_j weights[i][j] value_j, `Vectors` vectors of the dimension.
template <class T, int Queries, int Vectors>
HWY_INLINE void weigh_values(key_value_head const& head, index_t first, float const* weights, index_t weight_stride,
                             float const* factors, float* z, index_t z_stride) {
  T const* values = static_cast<T const*>(head.values) + first;
  floats sum[std::size_t{Queries}][std::size_t{Vectors}];
  SLIMTRIM_UNROLL for (int i = 0; i < Queries; ++i) {
    SLIMTRIM_UNROLL for (int v = 0; v < Vectors; ++v) sum[i][v] = zero_floats();
  }
  for (index_t j = 0; j < head.rows; ++j) {
    floats value[std::size_t{Vectors}];
    SLIMTRIM_UNROLL for (int v = 0; v < Vectors; ++v) value[v] = load(values + v * lanes);
    fetch_ahead(reinterpret_cast<std::byte const*>(values) + bytes_ahead, 1);
    values += head.value_stride;
    SLIMTRIM_UNROLL for (int i = 0; i < Queries; ++i) {
      floats const weight = broadcast(weights[i * weight_stride + j]);
      SLIMTRIM_UNROLL for (int v = 0; v < Vectors; ++v) sum[i][v] = multiply_add(value[v], weight, sum[i][v]);
    }
  }
  SLIMTRIM_UNROLL for (int i = 0; i < Queries; ++i) {
    SLIMTRIM_UNROLL for (int v = 0; v < Vectors; ++v)
        store(multiply(sum[i][v], broadcast(factors[i])), z + i * z_stride + first + v * lanes);
  }
}

template <class T, int Queries>
HWY_NOINLINE void attend_queries(key_value_head const& head, float const* q, index_t q_stride, float scale,
                                 float* scores, float* z, index_t z_stride) {
  // As many running sums as hide the latency of an addition and fit the registers.
  constexpr int blocks_together = lanes == key_positions ? 2 : 1, vectors = lanes == key_positions ? 4 : 2;
  index_t const blocks = ceil_div(head.rows, key_positions), stride = blocks * key_positions;
  index_t block = 0;
  for (; block + blocks_together <= blocks; block += blocks_together)
    scores_of<T, Queries, blocks_together>(head, block, q, q_stride, scale, scores, stride);
  for (; block < blocks; ++block) scores_of<T, Queries, 1>(head, block, q, q_stride, scale, scores, stride);
  float factors[std::size_t{Queries}];
  for (int i = 0; i < Queries; ++i) {
    float* const own = scores + i * stride;
    factors[i] = 1.0F / soften(own, head.rows);
    if (head.value_scales != nullptr)
      for (index_t j = 0; j < head.rows; ++j) own[j] *= head.value_scales[j * head.value_scale_stride];
  }
  index_t d = 0;
  for (; d + vectors * lanes <= head.dim; d += vectors * lanes)
    weigh_values<T, Queries, vectors>(head, d, scores, stride, factors, z, z_stride);
  for (; d < head.dim; d += lanes) weigh_values<T, Queries, 1>(head, d, scores, stride, factors, z, z_stride);
}

template <class T>
void attend_of(key_value_head const& head, float const* q, index_t q_stride, index_t queries, float scale,
               float* scores, float* z, index_t z_stride) {
  for (; queries >= 4; queries -= 4, q += 4 * q_stride, z += 4 * z_stride)
    attend_queries<T, 4>(head, q, q_stride, scale, scores, z, z_stride);
  if (queries >= 2) {
    attend_queries<T, 2>(head, q, q_stride, scale, scores, z, z_stride);
    queries -= 2, q += 2 * q_stride, z += 2 * z_stride;
  }
  if (queries == 1) attend_queries<T, 1>(head, q, q_stride, scale, scores, z, z_stride);
}

inline void attend(key_value_head const& head, float const* q, index_t q_stride, index_t queries, float scale,
                   float* scores, float* z, index_t z_stride) {
  if (head.bits == 32) return attend_of<float>(head, q, q_stride, queries, scale, scores, z, z_stride);
  if (head.bits == 16) return attend_of<float16>(head, q, q_stride, queries, scale, scores, z, z_stride);
  return attend_of<std::int8_t>(head, q, q_stride, queries, scale, scores, z, z_stride);
}

}  // namespace HWY_NAMESPACE
}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
HWY_AFTER_NAMESPACE();

#endif  // toggle
