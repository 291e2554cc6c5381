// Whether what is to run now is what the device holds already.
#pragma once

#include <slimtrim/model/decoder_layer.hpp>
#include <slimtrim/model/model_config.hpp>

#include <algorithm>
#include <optional>
#include <type_traits>
#include <variant>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// Whether two views with the same extents have the same elements in the same places.
template <class T>
[[nodiscard]] bool same_memory(matrix_view<T> a, matrix_view<T> b) {
  return a.data == b.data && a.stride(0) == b.stride(0) && a.stride(1) == b.stride(1);
}
[[nodiscard]] inline bool same_codes(quantized_view<> const& a, quantized_view<> const& b) {
  return a.words == b.words && a.words_per_row == b.words_per_row && a.bits == b.bits && a.block_rows == b.block_rows &&
         a.block_columns == b.block_columns && a.column_group == b.column_group && same_memory(a.scales, b.scales) &&
         same_memory(a.zeros, b.zeros);
}

[[nodiscard]] inline bool same_weight(weight const& a, weight const& b) {
  // A weight that does not keep its memory alive cannot be told from another in its place.
  if (a.storage == nullptr || a.storage != b.storage || a.view.index() != b.view.index() || a.rows() != b.rows() ||
      a.columns() != b.columns())
    return false;
  return std::visit(
      [&](auto const& x) {
        auto const& y = std::get<std::remove_cvref_t<decltype(x)>>(b.view);
        if constexpr (requires { x.words; })
          return same_codes(x, y);
        else if constexpr (requires { x.values; })
          return same_memory(x.values, y.values) && x.mask.words == y.mask.words &&
                 x.mask.words_per_row == y.mask.words_per_row;
        else if constexpr (requires { x.stride(0); })
          return same_memory(x, y);
        else
          return x.data == y.data && x.layout == y.layout;
      },
      a.view);
}
[[nodiscard]] inline bool same_swiglu(swiglu_weights const& a, swiglu_weights const& b) {
  return same_weight(a.gate, b.gate) && same_weight(a.up, b.up) && same_weight(a.down, b.down);
}
template <class T, class Same>
[[nodiscard]] bool same_option(std::optional<T> const& a, std::optional<T> const& b, Same const& same) {
  return a.has_value() == b.has_value() && (!a || same(*a, *b));
}
// Whether two layers hold the same memory. A layer that is held keeps its memory from being used for anything else.
[[nodiscard]] inline bool same_layer(decoder_layer const& a, decoder_layer const& b) {
  return same_option(a.attention, b.attention,
                     [](attention_weights const& x, attention_weights const& y) {
                       return x.norm == y.norm && same_weight(x.query, y.query) && same_weight(x.key, y.key) &&
                              same_weight(x.value, y.value) && same_weight(x.output, y.output);
                     }) &&
         a.feed_forward_norm == b.feed_forward_norm && same_option(a.dense, b.dense, same_swiglu) &&
         same_option(a.moe, b.moe, [](moe_weights const& x, moe_weights const& y) {
           return same_weight(x.router, y.router) && x.selection_bias == y.selection_bias && x.rule == y.rule &&
                  same_option(x.shared, y.shared, same_swiglu) &&
                  std::equal(x.experts.begin(), x.experts.end(), y.experts.begin(), y.experts.end(),
                             [](expert_weights const& e, expert_weights const& f) {
                               return e.novice == f.novice && (e.is_novice() || same_swiglu(e.swiglu, f.swiglu));
                             });
         });
}
[[nodiscard]] inline bool same_shape(model_config const& a, model_config const& b) {
  return a.hidden == b.hidden && a.heads == b.heads && a.key_value_heads == b.key_value_heads &&
         a.head_dim == b.head_dim && a.rms_epsilon == b.rms_epsilon && a.rope_theta == b.rope_theta &&
         a.rope_factor == b.rope_factor;
}

}  // namespace detail

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
