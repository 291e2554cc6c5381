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

[[nodiscard]] inline bool same_weight(weight const& a, weight const& b) {
  // A weight that does not keep its memory alive cannot be told from another in its place.
  if (a.storage == nullptr || a.storage != b.storage || a.view.index() != b.view.index() || a.rows() != b.rows() ||
      a.columns() != b.columns())
    return false;
  return std::visit(
      [&](auto const& x) {
        auto const& y = std::get<std::remove_cvref_t<decltype(x)>>(b.view);
        if constexpr (requires { x.words; })
          return x.words == y.words;
        else if constexpr (requires { x.values; })
          return x.values.data == y.values.data && x.mask.words == y.mask.words;
        else
          return x.data == y.data;
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
           return same_weight(x.router, y.router) && x.selection_bias == y.selection_bias &&
                  x.rule.top_k == y.rule.top_k && same_option(x.shared, y.shared, same_swiglu) &&
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
