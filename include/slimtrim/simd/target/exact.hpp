// Panels times float activations of a few tokens: what decoding needs when activations are not quantised.
//
// No code is ever shifted into place: a masked code is a whole number times 2^(bits i), exactly convertible, and the
// activation it meets carries 2^(-bits i). Zero points are taken off once a group: s (sum_k q a - z sum_k a).

#if defined(SLIMTRIM_SIMD_TARGET_EXACT_TOGGLE) == defined(HWY_TARGET_TOGGLE)
#ifdef SLIMTRIM_SIMD_TARGET_EXACT_TOGGLE
#undef SLIMTRIM_SIMD_TARGET_EXACT_TOGGLE
#else
#define SLIMTRIM_SIMD_TARGET_EXACT_TOGGLE
#endif

#include <slimtrim/simd/target/lanes.hpp>

HWY_BEFORE_NAMESPACE();
namespace slimtrim {
inline namespace v0 {
namespace simd {
namespace HWY_NAMESPACE {

/// Elements of one kind in a 32-bit word.
template <element_kind Kind>
inline constexpr int places = static_cast<int>(32 / bits_of(Kind));

/// The float16 in the low halves of x; finite values only. 2^112 moves the exponent bias, subnormals included.
HWY_INLINE floats from_half(words const& x) {
  return multiply(as_floats(either(left<16>(mask(x, 0x8000U)), left<13>(mask(x, 0x7fffU)))), broadcast(0x1.0p112F));
}

/// The element at place Place of every word: for codes times 2^(bits Place), except the last place.
template <element_kind Kind, int Place>
HWY_INLINE floats element(words const& x) {
  if constexpr (Kind == element_kind::codes4 || Kind == element_kind::codes8) {
    constexpr int bits = static_cast<int>(Kind);
    if constexpr (Place == places<Kind> - 1) {
      return convert(as_integers(right<32 - bits>(x)));
    } else {
      return convert(as_integers(mask(x, ((1U << bits) - 1U) << (bits * Place))));
    }
  } else if constexpr (Kind == element_kind::bfloat16_pairs) {
    if constexpr (Place == 0) return as_floats(left<16>(x));
    return as_floats(mask(x, 0xffff0000U));
  } else if constexpr (Kind == element_kind::float16_pairs) {
    if constexpr (Place == 0) return from_half(x);
    return from_half(right<16>(x));
  } else {
    return as_floats(x);
  }
}

/// The code at place Place itself, as a float.
template <element_kind Kind, int Place>
HWY_INLINE floats plain_element(words const& x) {
  if constexpr (Kind == element_kind::codes4 || Kind == element_kind::codes8) {
    constexpr int bits = static_cast<int>(Kind);
    if constexpr (Place == 0) return convert(as_integers(mask(x, (1U << bits) - 1U)));
    if constexpr (Place == places<Kind> - 1) return convert(as_integers(right<32 - bits>(x)));
    if constexpr (Place > 0) return convert(as_integers(mask(right<bits * Place>(x), (1U << bits) - 1U)));
  } else {
    return element<Kind, Place>(x);
  }
}

/// Panels * Tokens running sums, each split into Ways so that additions do not wait for one another.
template <int Tokens, int Panels, int Ways>
struct running_sums {
  floats at[std::size_t{Panels}][std::size_t{Tokens}][std::size_t{Ways}];
  HWY_INLINE running_sums() {}
};

template <element_kind Kind, int Tokens, int Panels, int Ways, int Place>
HWY_INLINE void accumulate_place(words const (&x)[std::size_t{Panels}], float const* const (&a)[std::size_t{Tokens}],
                                 running_sums<Tokens, Panels, Ways>& sums, int offset) {
  floats w[std::size_t{Panels}];
  SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) w[p] = element<Kind, Place>(x[p]);
  SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) {
    floats const value = broadcast(a[t][offset + Place]);
    SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) {
      constexpr int way = Place % Ways;
      sums.at[p][t][way] = multiply_add(w[p], value, sums.at[p][t][way]);
    }
  }
  if constexpr (Place + 1 < places<Kind>)
    accumulate_place<Kind, Tokens, Panels, Ways, Place + 1>(x, a, sums, offset);
}

template <element_kind Kind, int Tokens, int Panels>
HWY_INLINE void exact_panels(panel_view const& view, index_t panel, index_t last, float_activations const& X,
                             output_rows out) {
  // Eight sums hide the latency of an addition, as far as a word has places to spread over.
  constexpr int wanted = Panels == 1 ? 8 / Tokens : 1, ways = wanted < places<Kind> ? wanted : places<Kind>;
  constexpr bool codes = Kind == element_kind::codes4 || Kind == element_kind::codes8;
  constexpr int words_a_block = static_cast<int>(bits_of(Kind));
  index_t const head_bytes = view.head_bytes(), groups_a_stretch = view.groups_a_stretch();
  panel_walk walk[std::size_t{Panels}];
  // Where the number of panels is not whole, the last is read again and its copy written nowhere.
  SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p)
      walk[p] = {view.data + (panel + p < last ? panel + p : last) * view.panel_bytes};
  float const* a[std::size_t{Tokens}];
  for (int t = 0; t < Tokens; ++t) a[t] = X.values + X.row(t) * X.stride;
  floats total[std::size_t{Panels}][std::size_t{Tokens}];
  SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) {
    SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) total[p][t] = zero_floats();
  }
  for (index_t first = 0, group = 0; first < view.blocks; first += view.group_blocks, ++group) {
    index_t const count = first + view.group_blocks < view.blocks ? view.group_blocks : view.blocks - first;
    running_sums<Tokens, Panels, ways> sums;
    SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) {
      walk[p].enter_group(head_bytes, groups_a_stretch);
      if constexpr (codes && Panels == 1) fetch_ahead(walk[p].head + bytes_ahead, 64);
      SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) {
        SLIMTRIM_UNROLL for (int i = 0; i < ways; ++i) sums.at[p][t][i] = zero_floats();
      }
    }
    for (index_t word = 0; word < count * words_a_block; ++word) {
      words x[std::size_t{Panels}];
      SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) {
        if constexpr (Panels == 1) fetch_ahead(walk[p].words + bytes_ahead, 4 * lanes);
        x[p] = load(reinterpret_cast<std::uint32_t const*>(walk[p].words));
        walk[p].words += 4 * lanes;
      }
      accumulate_place<Kind, Tokens, Panels, ways, 0>(x, a, sums, 0);
      SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) a[t] += places<Kind>;
    }
    SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) {
      floats scale, zero;
      if constexpr (codes) {
        scale = load_head(view, walk[p].head);
        zero = load_zeros(view, walk[p].head);
      }
      SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) {
        floats sum = sums.at[p][t][0];
        SLIMTRIM_UNROLL for (int i = 1; i < ways; ++i) sum = add(sum, sums.at[p][t][i]);
        if constexpr (codes) {
          floats const all = broadcast(X.group_sums[X.row(t) * X.groups + group]);
          total[p][t] = multiply_add(scale, subtract(sum, multiply(zero, all)), total[p][t]);
        } else {
          total[p][t] = add(total[p][t], sum);
        }
      }
    }
  }
  SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) {
    SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) {
      store_some(total[p][t], out.data + t * out.token_stride + p * lanes * out.row_stride, out.row_stride,
                 out.rows - p * lanes);
    }
  }
}

template <element_kind Kind, int Tokens>
HWY_NOINLINE void exact_tokens(panel_view const& view, index_t panel, index_t panels, float_activations const& X,
                               output_rows out) {
  // One panel at a time is one stream of memory; two share what is read of the activations.
  constexpr int together = Tokens <= 4 ? 1 : 2;
  for (index_t p = 0; p < panels; p += together) {
    exact_panels<Kind, Tokens, together>(view, panel + p, panel + panels - 1, X, out);
    out.data += together * lanes * out.row_stride;
    out.rows -= together * lanes;
  }
}

// Four tokens and two panels are eight independent sums, as many as the latency of an addition needs. With 32 registers
// eight tokens share the conversion of a code, and a product runs at the rate of its multiply-adds.
#if HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_AVX3
inline constexpr index_t exact_tokens_together = 8, exact_streamed_tokens = index_t{1} << 40;
#else
inline constexpr index_t exact_tokens_together = 4, exact_streamed_tokens = 16;
#endif

template <element_kind Kind>
void exact_few_of(panel_view const& view, index_t panel, index_t panels, float_activations const& X, index_t tokens,
                  output_rows out) {
  constexpr index_t most = exact_tokens_together;
  for (index_t first = 0; first < tokens; first += most) {
    float_activations now = X;
    if (X.tokens != nullptr) {
      now.tokens += first;
    } else {
      now.values += first * X.stride;
      if (X.group_sums != nullptr) now.group_sums += first * X.groups;
    }
    output_rows to = out;
    to.data += first * out.token_stride;
    index_t const count = tokens - first < most ? tokens - first : most;
    if constexpr (most == 8) {
      switch (count) {
        case 5: exact_tokens<Kind, 5>(view, panel, panels, now, to); continue;
        case 6: exact_tokens<Kind, 6>(view, panel, panels, now, to); continue;
        case 7: exact_tokens<Kind, 7>(view, panel, panels, now, to); continue;
        case 8: exact_tokens<Kind, 8>(view, panel, panels, now, to); continue;
        default: break;
      }
    }
    switch (count) {
      case 1: exact_tokens<Kind, 1>(view, panel, panels, now, to); break;
      case 2: exact_tokens<Kind, 2>(view, panel, panels, now, to); break;
      case 3: exact_tokens<Kind, 3>(view, panel, panels, now, to); break;
      case 4: exact_tokens<Kind, 4>(view, panel, panels, now, to); break;
      default: break;
    }
  }
}

inline void exact_few(panel_view const& view, index_t panel, index_t panels, float_activations const& X, index_t tokens,
                      output_rows out) {
  switch (view.kind) {
    case element_kind::codes4: return exact_few_of<element_kind::codes4>(view, panel, panels, X, tokens, out);
    case element_kind::codes8: return exact_few_of<element_kind::codes8>(view, panel, panels, X, tokens, out);
    case element_kind::bfloat16_pairs:
      return exact_few_of<element_kind::bfloat16_pairs>(view, panel, panels, X, tokens, out);
    case element_kind::float16_pairs:
      return exact_few_of<element_kind::float16_pairs>(view, panel, panels, X, tokens, out);
    case element_kind::floats: return exact_few_of<element_kind::floats>(view, panel, panels, X, tokens, out);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
HWY_AFTER_NAMESPACE();

#endif  // toggle
