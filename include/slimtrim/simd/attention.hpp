// Attention while decoding: few queries, keys and values from a cache, every head's cache read once.
//
// It stands in for causal_attention of model/attention.hpp, which calls a backend's member `attend_few`.
#pragma once

#include <slimtrim/core/executor.hpp>
#include <slimtrim/simd/kernel_table.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace slimtrim {
inline namespace v0 {
namespace simd {

/// Whether attend_few covers this call.
template <class Shape, class View>
[[nodiscard]] bool covers_attention(Shape const& shape, matrix_view<float const> Q, View const&, matrix_view<float> Z) {
  constexpr index_t most_tokens = 16;
  return Q.extent(0) <= most_tokens && shape.head_dim % key_positions == 0 && Q.stride(1) == 1 && Z.stride(1) == 1;
}

/// causal_attention of model/attention.hpp for a kv_view: extents as there. One piece for each token and key-value
/// head, whose queries share what is read; scores and sums in float, positions in ascending order. Deterministic for
/// any executor.
template <class Shape, class View>
void attend_few(kernel_table const& kernels, executor* run_on, Shape const& shape, matrix_view<float const> Q,
                View const& kept, index_t first_position, matrix_view<float> Z) {
  static_assert(View::positions == key_positions);
  index_t const dim = shape.head_dim, heads = shape.key_value_heads, group = shape.heads / heads;
  index_t const size = bits_of(kept.precision) / 8;
  float const scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(dim)));
  parallel_for(run_on, Q.extent(0) * heads, [&](index_t piece) {
    index_t const t = piece / heads, head = piece % heads;
    key_value_head one;
    one.bits = 8 * size;
    one.rows = first_position + t + 1;
    one.dim = dim;
    one.keys = static_cast<std::byte const*>(kept.keys) + kept.key_at(0, head, 0) * size;
    one.values = static_cast<std::byte const*>(kept.values) + kept.value_at(0, head, 0) * size;
    one.key_stride = dim * key_positions;
    one.value_stride = dim;
    if (size == 1) {
      one.key_scales = kept.key_scales + kept.scale_at(0, head);
      one.value_scales = kept.value_scales + kept.scale_at(0, head);
      one.key_scale_stride = key_positions;
      one.value_scale_stride = 1;
    }
    buffer<float> scores(std::min<index_t>(group, 4) * round_up(one.rows, key_positions));
    kernels.attend(one, &Q(t, head * group * dim), dim, group, scale, scores.data(), &Z(t, head * group * dim), dim);
  });
}

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
