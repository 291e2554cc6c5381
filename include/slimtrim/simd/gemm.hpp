// Products with many tokens: panels of the weight become floats a few hundred columns at a time, and are multiplied in
// register tiles, so that expanding a weight is paid once for over a hundred tokens.
#pragma once

#include <slimtrim/simd/gemv.hpp>

#include <algorithm>

namespace slimtrim {
inline namespace v0 {
namespace simd {

namespace detail {

/// Activations of all tokens in tiles of at most tile_tokens: column k of a tile's tokens side by side, columns padded
/// with zeros to whole blocks.
class tiled_activations {
 public:
  tiled_activations(matrix_view<float const> X, index_t depth, executor* run_on)
      : tokens_(X.extent(0)), depth_(depth), tiles_(ceil_div(tokens_, tile_tokens)), values_(tokens_ * depth) {
    parallel_for(run_on, tiles_, [&](index_t tile) {
      index_t const first = first_token(tile), count = first_token(tile + 1) - first;
      float* const to = values_.data() + first * depth_;
      for (index_t t = 0; t < count; ++t) {
        float const* const from = X.data + (first + t) * X.stride(0);
        for (index_t k = 0; k < X.extent(1); ++k) to[k * count + t] = from[k * X.stride(1)];
      }
      std::fill(to + X.extent(1) * count, to + depth_ * count, 0.0F);
    });
  }

  [[nodiscard]] index_t tiles() const { return tiles_; }
  /// Tiles differ by at most one token, so that none is left with a single one.
  [[nodiscard]] index_t first_token(index_t tile) const { return tile * tokens_ / tiles_; }
  [[nodiscard]] float const* tile(index_t tile, index_t column) const {
    index_t const first = first_token(tile);
    return values_.data() + first * depth_ + column * (first_token(tile + 1) - first);
  }

 private:
  index_t tokens_, depth_, tiles_;
  buffer<float> values_;
};

}  // namespace detail

/// Y = X Wᵀ with float activations, X: [T, in], Y: [T, out]. The weight is expanded exactly; sums are formed in float
/// within panels of 256 columns that are added in order.
inline void gemm_exact(kernel_table const& kernels, executor* run_on, panel_source const& source,
                       matrix_view<float const> X, matrix_view<float> Y) {
  constexpr index_t blocks_a_step = 8, tiles_a_piece = 20;
  constexpr index_t depth_a_step = blocks_a_step * block_columns;
  index_t const lanes = kernels.lanes, width = 2 * lanes, panels = source.plan.panels();
  detail::tiled_activations const ready(X, source.plan.blocks * block_columns, run_on);
  index_t const stretches = ceil_div(ready.tiles(), tiles_a_piece);
  parallel_for(run_on, ceil_div(panels, 2) * stretches, [&](index_t piece) {
    index_t const first = piece / stretches * 2, count = std::min<index_t>(2, panels - first);
    index_t const begin = piece % stretches * tiles_a_piece, end = std::min(begin + tiles_a_piece, ready.tiles());
    buffer<std::byte> scratch(source.scratch_bytes(count));
    panel_view const view = source.at(first, count, scratch);
    buffer<float> expanded(depth_a_step * width);
    index_t const first_token = ready.first_token(begin), tokens = ready.first_token(end) - first_token;
    buffer<float> sums(tokens * width);
    if (count == 1) std::fill(expanded.begin(), expanded.end(), 0.0F);
    for (index_t block = 0; block < view.blocks; block += blocks_a_step) {
      index_t const blocks = std::min(blocks_a_step, view.blocks - block);
      for (index_t p = 0; p < count; ++p) kernels.expand(view, p, block, blocks, expanded.data() + p * lanes, width);
      for (index_t tile = begin; tile < end; ++tile) {
        index_t const t = ready.first_token(tile);
        kernels.multiply_tile(expanded.data(), ready.tile(tile, block * block_columns), blocks * block_columns,
                              ready.first_token(tile + 1) - t, block > 0, sums.data() + (t - first_token) * width, width);
      }
    }
    index_t const row = first * lanes, rows = std::min(count * lanes, Y.extent(1) - row);
    for (index_t t = 0; t < tokens; ++t)
      for (index_t r = 0; r < rows; ++r) Y(first_token + t, row + r) = sums[t * width + r];
  });
}

/// Every Y = X Wᵀ with 8-bit activations for weights of codes that `X` suits; X: [T, in]. The bytes of a block of columns stay in registers while a tile of tokens passes.
/// Bound at rounded_activations. Deterministic for any executor.
inline void gemm_int8(kernel_table const& kernels, executor* run_on, std::span<panel_product const> products,
                      rounded_activations const& X) {
  constexpr index_t tiles_a_piece = 8, bytes_a_piece = 65536;
  rounded_tiles const ready(X, run_on);
  index_t const stretches = ceil_div(ready.tiles(), tiles_a_piece);
  detail::joined_pieces pieces;
  for (panel_product const& each : products)
    pieces.add(ceil_div(each.source.plan.panels(), detail::panels_a_piece(each.source.plan, bytes_a_piece)) * stretches);
  parallel_for(run_on, pieces.count(), [&](index_t piece) {
    panel_product const& product = products[pieces.job_of(piece)];
    panel_view const& plan = product.source.plan;
    index_t const a_piece = detail::panels_a_piece(plan, bytes_a_piece);
    index_t const first = piece / stretches * a_piece, count = std::min(a_piece, plan.panels() - first);
    index_t const begin = piece % stretches * tiles_a_piece, end = std::min(begin + tiles_a_piece, ready.tiles());
    buffer<std::byte> scratch(product.source.scratch_bytes(count));
    panel_view const view = product.source.at(first, count, scratch);
    for (index_t tile = begin; tile < end; ++tile) {
      index_t const t = ready.first_token(tile);
      kernels.int8(view, 0, count, ready.tile(tile), ready.first_token(tile + 1) - t,
                   detail::output_of(product.Y, first * plan.lanes, t));
    }
  });
}

/// Every Y = X Wᵀ by the path that suits the number of tokens: up to `few_int8` of them, or as many as the kernels say where
/// activations stay floats, weights are streamed past the tokens; beyond it tiles of tokens meet weights in registers.
inline void multiply_panels(kernel_table const& kernels, executor* run_on, std::span<panel_product const> products,
                            activation_kind kind, matrix_view<float const> X, index_t few_int8) {
  auto const rounds = [&](panel_product const& each) {
    return kind == activation_kind::int8 && each.source.plan.quantised();
  };
  bool const some_rounded = std::any_of(products.begin(), products.end(), rounds);
  if (X.extent(0) <= (some_rounded ? few_int8 : kernels.streamed_tokens))
    return gemv(kernels, run_on, products, kind, X);
  // Products that share rounded activations, a run of them at a time.
  for (std::size_t i = 0; i < products.size();) {
    if (!rounds(products[i])) {
      gemm_exact(kernels, run_on, products[i].source, X, products[i].Y);
      ++i;
      continue;
    }
    rounded_activations const rounded(kernels, X, products[i].source.plan, run_on);
    std::size_t end = i + 1;
    while (end < products.size() && rounds(products[end]) && rounded.suit(kernels, products[end].source.plan)) ++end;
    gemm_int8(kernels, run_on, products.subspan(i, end - i), rounded);
    i = end;
  }
}

}  // namespace simd
}  // namespace v0
}  // namespace slimtrim
