// Many tokens: panels are expanded to floats a few hundred columns at a time and multiplied in register tiles of
// 6 tokens x 2 panels, so that expanding is paid once for all tokens.

#if defined(SLIMTRIM_SIMD_TARGET_TILE_TOGGLE) == defined(HWY_TARGET_TOGGLE)
#ifdef SLIMTRIM_SIMD_TARGET_TILE_TOGGLE
#undef SLIMTRIM_SIMD_TARGET_TILE_TOGGLE
#else
#define SLIMTRIM_SIMD_TARGET_TILE_TOGGLE
#endif

#include <slimtrim/simd/target/exact.hpp>

HWY_BEFORE_NAMESPACE();
namespace slimtrim {
inline namespace v0 {
namespace simd {
namespace HWY_NAMESPACE {

template <element_kind Kind, int Place>
HWY_INLINE void expand_word(words const& x, floats const& scale, floats const& zero, float* out, index_t stride) {
  floats value = plain_element<Kind, Place>(x);
  if constexpr (Kind == element_kind::codes4 || Kind == element_kind::codes8)
    value = multiply(subtract(value, zero), scale);
  store(value, out + Place * stride);
  if constexpr (Place + 1 < places<Kind>) expand_word<Kind, Place + 1>(x, scale, zero, out, stride);
}

template <element_kind Kind>
void expand_of(panel_view const& view, index_t panel, index_t first, index_t blocks, float* out, index_t stride) {
  std::byte const* const start = view.data + panel * view.panel_bytes;
  for (index_t block = first; block < first + blocks; ++block) {
    std::byte const* const head = start + view.head_at(block / view.group_blocks);
    std::byte const* from = start + view.words_at(block);
    floats scale = zero_floats(), zero = zero_floats();
    if (view.quantised()) {
      scale = load_head(view, head);
      zero = load_zeros(view, head);
    }
    for (int word = 0; word < static_cast<int>(bits_of(Kind)); ++word) {
      expand_word<Kind, 0>(load(reinterpret_cast<std::uint32_t const*>(from)), scale, zero, out, stride);
      from += 4 * lanes;
      out += places<Kind> * stride;
    }
  }
}

inline void expand(panel_view const& view, index_t panel, index_t first, index_t blocks, float* out, index_t stride) {
  switch (view.kind) {
    case element_kind::codes4: return expand_of<element_kind::codes4>(view, panel, first, blocks, out, stride);
    case element_kind::codes8: return expand_of<element_kind::codes8>(view, panel, first, blocks, out, stride);
    case element_kind::bfloat16_pairs:
      return expand_of<element_kind::bfloat16_pairs>(view, panel, first, blocks, out, stride);
    case element_kind::float16_pairs:
      return expand_of<element_kind::float16_pairs>(view, panel, first, blocks, out, stride);
    case element_kind::floats: return expand_of<element_kind::floats>(view, panel, first, blocks, out, stride);
  }
}

template <int Tokens>
HWY_NOINLINE void tile_of(float const* panel, float const* x, index_t depth, bool accumulate, float* out,
                          index_t token_stride) {
  floats sum[std::size_t{Tokens}][2];
  SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) {
    sum[t][0] = zero_floats();
    sum[t][1] = zero_floats();
  }
  for (index_t k = 0; k < depth; ++k) {
    floats const w0 = load(panel), w1 = load(panel + lanes);
    SLIMTRIM_UNROLL for (int t = 0; t < Tokens; ++t) {
      floats const value = broadcast(x[t]);
      sum[t][0] = multiply_add(w0, value, sum[t][0]);
      sum[t][1] = multiply_add(w1, value, sum[t][1]);
    }
    panel += 2 * lanes;
    x += Tokens;
  }
  for (int t = 0; t < Tokens; ++t) {
    float* const to = out + t * token_stride;
    if (accumulate) {
      sum[t][0] = add(load(const_cast<float const*>(to)), sum[t][0]);
      sum[t][1] = add(load(const_cast<float const*>(to + lanes)), sum[t][1]);
    }
    store(sum[t][0], to);
    store(sum[t][1], to + lanes);
  }
}

inline void multiply_tile(float const* panel, float const* x, index_t depth, index_t tokens, bool accumulate, float* out,
                          index_t token_stride) {
  switch (tokens) {
    case 1: return tile_of<1>(panel, x, depth, accumulate, out, token_stride);
    case 2: return tile_of<2>(panel, x, depth, accumulate, out, token_stride);
    case 3: return tile_of<3>(panel, x, depth, accumulate, out, token_stride);
    case 4: return tile_of<4>(panel, x, depth, accumulate, out, token_stride);
    case 5: return tile_of<5>(panel, x, depth, accumulate, out, token_stride);
    case 6: return tile_of<6>(panel, x, depth, accumulate, out, token_stride);
    default: return;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
HWY_AFTER_NAMESPACE();

#endif  // toggle
