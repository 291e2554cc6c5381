// Panels of codes times 8-bit activations. A block of 32 columns is an integer dot product of what the codes are above
// their zero point; it is multiplied by the activations' scale and added up in float within a group of columns, whose
// sum meets the weights' scale.

#if defined(SLIMTRIM_SIMD_TARGET_INT8_TOGGLE) == defined(HWY_TARGET_TOGGLE)
#ifdef SLIMTRIM_SIMD_TARGET_INT8_TOGGLE
#undef SLIMTRIM_SIMD_TARGET_INT8_TOGGLE
#else
#define SLIMTRIM_SIMD_TARGET_INT8_TOGGLE
#endif

#include <slimtrim/simd/target/byte_dot.hpp>

HWY_BEFORE_NAMESPACE();
// Highway 1.0 names this target after VNNI but does not switch the 512-bit instructions on.
#if HWY_TARGET == HWY_AVX3_DL
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512vnni"))), apply_to = function)
#else
#pragma GCC target("avx512vnni")
#endif
#endif
namespace slimtrim {
inline namespace v0 {
namespace simd {
namespace HWY_NAMESPACE {

/// Where a kernel finds `Tokens` tokens in block 0. Tokens that lie beside one another need one pointer for all.
template <int Tokens, bool Beside>
struct int8_block {
  std::int8_t const* codes[std::size_t{Beside ? 1 : Tokens}];
  float const* scales[std::size_t{Beside ? 1 : Tokens}];
  std::int32_t const* starts[std::size_t{Beside ? 1 : Tokens}];

  HWY_INLINE std::int8_t const* codes_of(int t, index_t at) const {
    return Beside ? codes[0] + (at + t) * block_columns : codes[t] + at * block_columns;
  }
  HWY_INLINE float scale_of(int t, index_t at) const { return Beside ? scales[0][at + t] : scales[t][at]; }
  HWY_INLINE std::int32_t start_of(int t, index_t at) const { return Beside ? starts[0][at + t] : starts[t][at]; }
};

template <int Tokens, bool Beside>
HWY_INLINE int8_block<Tokens, Beside> block_of(int8_activations const& X, index_t first) {
  int8_block<Tokens, Beside> block;
  SLIMTRIM_UNROLL for (int t = 0; t < (Beside ? 1 : Tokens); ++t) {
    index_t const at = X.row(first + t) * X.token_stride;
    block.codes[t] = X.codes + at * block_columns;
    block.scales[t] = X.scales + at;
    block.starts[t] = X.starts + at;
  }
  return block;
}

/// The zero points of a group on the scale of code_bytes.
template <element_kind Kind>
HWY_INLINE integers zeros_of(panel_view const& view, std::byte const* head) {
  return add(to_integers(load_head(view, head, lanes)),
             broadcast(signed_codes<Kind> ? std::int32_t{-128} : std::int32_t{0}));
}

/// What the dot product of a block starts from: minus the zero points times the sum of the activations' codes.
template <bool Zeros>
HWY_INLINE integers start_from(integers const& zeros, std::int32_t start) {
  if constexpr (Zeros) return multiply(zeros, broadcast(start));
  return broadcast(start);
}

/// Bytes of 32 columns of a panel.
template <element_kind Kind>
inline constexpr int block_bytes_of = static_cast<int>(bits_of(Kind)) * 4 * lanes;

/// A few tokens: every word meets all of them while it is in a register. One panel at a time is one stream of memory,
/// two share what is read of the activations.
template <element_kind Kind, bool Zeros, int Tokens, int Panels, bool Beside>
HWY_INLINE void int8_few(panel_view const& view, index_t panel, index_t last, int8_activations const& X, index_t first,
                         output_rows const& out) {
  constexpr int stored_words = static_cast<int>(bits_of(Kind));
  index_t const head_bytes = view.head_bytes(), groups_a_stretch = view.groups_a_stretch();
  panel_walk at_panel[std::size_t{Panels}];
  // Where the number of panels is not whole, the last is read again and its copy written nowhere.
  SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p)
      at_panel[p] = {view.data + (panel + p < last ? panel + p : last) * view.panel_bytes};
  auto const token = block_of<Tokens, Beside>(X, first);
  floats total[std::size_t{Panels}][std::size_t{Tokens}];
  SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) {
    SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) total[p][t] = zero_floats();
  }
  index_t block = 0;
  while (block < view.blocks) {
    index_t const end = block + view.group_blocks < view.blocks ? block + view.group_blocks : view.blocks;
    floats part[std::size_t{Panels}][std::size_t{Tokens}];
    integers zeros[std::size_t{Panels}];
    SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) {
      at_panel[p].enter_group(head_bytes, groups_a_stretch);
      if constexpr (Panels == 1) fetch_ahead(at_panel[p].head + bytes_ahead, 64);
      if constexpr (Zeros) zeros[p] = zeros_of<Kind>(view, at_panel[p].head);
      SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) part[p][t] = zero_floats();
    }
    for (; block < end; ++block) {
      integers sum[std::size_t{Panels}][std::size_t{Tokens}];
      index_t const at = block * X.block_stride;
      SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) {
        SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) sum[p][t] =
            begin_dot<Kind>(start_from<Zeros>(zeros[p], token.start_of(t, at)));
      }
      if constexpr (Panels == 1) fetch_ahead(at_panel[0].words + bytes_ahead, block_bytes_of<Kind>);
      SLIMTRIM_UNROLL for (int word = 0; word < stored_words; ++word) {
        constexpr int step = Kind == element_kind::codes4 ? 8 : 4;
        words w[std::size_t{Panels}];
        SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) w[p] = code_bytes<Kind, 0>(at_panel[p].words, word);
        SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) {
          SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) sum[p][t] =
              add_dot<Kind>(sum[p][t], w[p], token.codes_of(t, at) + word * step);
        }
        if constexpr (Kind == element_kind::codes4) {
          SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) w[p] = code_bytes<Kind, 1>(at_panel[p].words, word);
          SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) {
            SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) sum[p][t] =
                add_dot<Kind>(sum[p][t], w[p], token.codes_of(t, at) + word * step + 4);
          }
        }
      }
      SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) {
        floats const scale = broadcast(token.scale_of(t, at));
        SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) part[p][t] = multiply_add(
            finish_dot<Kind>(sum[p][t], start_from<Zeros>(zeros[p], token.start_of(t, at))), scale, part[p][t]);
      }
      SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) at_panel[p].words += block_bytes_of<Kind>;
    }
    SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) {
      floats const scale = load_head(view, at_panel[p].head);
      SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) total[p][t] = multiply_add(scale, part[p][t], total[p][t]);
    }
  }
  SLIMTRIM_UNROLL for (int p = 0; p < Panels; ++p) {
    SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t)
        store_some(total[p][t], out.data + (first + t) * out.token_stride + p * lanes * out.row_stride, out.row_stride,
                   out.rows - p * lanes);
  }
}

#if HWY_TARGET == HWY_AVX3_DL || HWY_TARGET == HWY_AVX3

template <element_kind Kind, bool Zeros, bool Beside>
HWY_INLINE void int8_tile(panel_view const& view, index_t panel, index_t last, int8_activations const& X, index_t first,
                          index_t tokens, output_rows const& out) {
  switch (tokens) {
    case 2:
      return int8_few<Kind, Zeros, 2, 2, Beside>(view, panel, last, X, first, out);
    case 3:
      return int8_few<Kind, Zeros, 3, 2, Beside>(view, panel, last, X, first, out);
    case 4:
      return int8_few<Kind, Zeros, 4, 2, Beside>(view, panel, last, X, first, out);
    case 5:
      return int8_few<Kind, Zeros, 5, 2, Beside>(view, panel, last, X, first, out);
    case 6:
      return int8_few<Kind, Zeros, 6, 2, Beside>(view, panel, last, X, first, out);
    default:
      return;
  }
}

/// Many tokens with 32 registers: up to six at a time, with the running sums of two panels in registers. Tokens
/// that lie one behind another, each of which needs pointers of its own, are taken up to four at a time.
template <element_kind Kind, bool Zeros>
HWY_INLINE void int8_many(panel_view const& view, index_t panel, index_t last, int8_activations const& X,
                          index_t tokens, output_rows const& out) {
  bool const beside = X.token_stride == 1 && X.tokens == nullptr;
  index_t const tiles = ceil_div(tokens, beside ? index_t{6} : index_t{4});
  for (index_t tile = 0; tile < tiles; ++tile) {
    index_t const first = tile * tokens / tiles, count = (tile + 1) * tokens / tiles - first;
    if (beside) {
      int8_tile<Kind, Zeros, true>(view, panel, last, X, first, count, out);
    } else {
      int8_tile<Kind, Zeros, false>(view, panel, last, X, first, count, out);
    }
  }
}
inline constexpr int panels_of_many = 2;

#else

/// Many tokens with 16 registers: the bytes of a block stay in registers while the tokens pass.
template <element_kind Kind, bool Zeros>
HWY_INLINE void int8_many(panel_view const& view, index_t panel, index_t, int8_activations const& X, index_t tokens,
                          output_rows const& out) {
  panel_walk walk{view.data + panel * view.panel_bytes};
  index_t token[int8_tokens];
  floats total[int8_tokens], part[int8_tokens];
  for (index_t t = 0; t < tokens; ++t) {
    token[t] = X.row(t) * X.token_stride;
    total[t] = part[t] = zero_floats();
  }
  index_t block = 0;
  while (block < view.blocks) {
    index_t const end = block + view.group_blocks < view.blocks ? block + view.group_blocks : view.blocks;
    walk.enter_group(view.head_bytes(), view.groups_a_stretch());
    integers zeros;
    if constexpr (Zeros) zeros = zeros_of<Kind>(view, walk.head);
    for (; block < end; ++block) {
      words w[8];
      SLIMTRIM_UNROLL for (int j = 0; j < 8; ++j) {
        if constexpr (Kind == element_kind::codes4) {
          w[j] = j % 2 == 0 ? code_bytes<Kind, 0>(walk.words, j / 2) : code_bytes<Kind, 1>(walk.words, j / 2);
        } else {
          w[j] = code_bytes<Kind, 0>(walk.words, j);
        }
      }
      walk.words += block_bytes_of<Kind>;
      for (index_t t = 0; t < tokens; ++t) {
        index_t const at = token[t] + block * X.block_stride;
        integers const start = start_from<Zeros>(zeros, X.starts[at]);
        integers sum = begin_dot<Kind>(start);
        SLIMTRIM_UNROLL for (int j = 0; j < 8; ++j) sum =
            add_dot<Kind>(sum, w[j], X.codes + at * block_columns + 4 * j);
        part[t] = multiply_add(finish_dot<Kind>(sum, start), broadcast(X.scales[at]), part[t]);
      }
    }
    floats const scale = load_head(view, walk.head);
    for (index_t t = 0; t < tokens; ++t) {
      total[t] = multiply_add(scale, part[t], total[t]);
      part[t] = zero_floats();
    }
  }
  for (index_t t = 0; t < tokens; ++t) store_some(total[t], out.data + t * out.token_stride, out.row_stride, out.rows);
}
inline constexpr int panels_of_many = 1;

#endif

template <element_kind Kind, bool Zeros>
HWY_NOINLINE void int8_of(panel_view const& view, index_t panel, index_t panels, int8_activations const& X,
                          index_t tokens, output_rows out) {
  index_t const together = tokens <= 4 ? 1 : panels_of_many, last = panel + panels - 1;
  for (index_t p = panel; p <= last; p += together) {
    switch (tokens) {
      case 1:
        int8_few<Kind, Zeros, 1, 1, false>(view, p, last, X, 0, out);
        break;
      case 2:
        int8_few<Kind, Zeros, 2, 1, false>(view, p, last, X, 0, out);
        break;
      case 3:
        int8_few<Kind, Zeros, 3, 1, false>(view, p, last, X, 0, out);
        break;
      case 4:
        int8_few<Kind, Zeros, 4, 1, false>(view, p, last, X, 0, out);
        break;
      default:
        int8_many<Kind, Zeros>(view, p, last, X, tokens, out);
        break;
    }
    out.data += together * lanes * out.row_stride;
    out.rows -= together * lanes;
  }
}

inline void int8_product(panel_view const& view, index_t panel, index_t panels, int8_activations const& X,
                         index_t tokens, output_rows out) {
  using enum element_kind;
  if (view.kind == codes4 && view.has_zeros) return int8_of<codes4, true>(view, panel, panels, X, tokens, out);
  if (view.kind == codes4) return int8_of<codes4, false>(view, panel, panels, X, tokens, out);
  if (view.kind == codes8 && view.has_zeros) return int8_of<codes8, true>(view, panel, panels, X, tokens, out);
  if (view.kind == codes8) return int8_of<codes8, false>(view, panel, panels, X, tokens, out);
}

}  // namespace HWY_NAMESPACE
}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
#if HWY_TARGET == HWY_AVX3_DL && defined(__clang__)
#pragma clang attribute pop
#endif
HWY_AFTER_NAMESPACE();

#endif  // toggle
