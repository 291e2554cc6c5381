// Products cut into tiles of constant shape over an executor. Part of backend/eigen.hpp.
#pragma once

#include <slimtrim/backend/detail/eigen_tile.hpp>
#include <slimtrim/core/executor.hpp>

#include <algorithm>

namespace slimtrim {
inline namespace v0 {

namespace detail {

// Multiples of the register blocks of Eigen's kernels (12 or 24 rows by 4 columns with 256-bit vectors).
inline constexpr index_t tile_rows = 192;
inline constexpr index_t tile_columns = 256;
inline constexpr index_t triangle_side = 192;
inline constexpr index_t triangle_strip = 48;

// C = alpha A B + beta C.
template <class T>
void tiled_gemm(executor* run_on, T alpha, matrix_view<T const> A, matrix_view<T const> B, T beta, matrix_view<T> C) {
  if (C.stride(1) != 1 && C.stride(0) == 1) {
    tiled_gemm(run_on, alpha, transposed(B), transposed(A), beta, transposed(C));
    return;
  }
  index_t const tiles_down = ceil_div(C.extent(0), tile_rows);
  index_t const tiles_across = ceil_div(C.extent(1), tile_columns);
  parallel_for(run_on, tiles_down * tiles_across, [&](index_t tile) {
    index_t const i = tile / tiles_across * tile_rows, j = tile % tiles_across * tile_columns;
    index_t const n = std::min(tile_rows, C.extent(0) - i), m = std::min(tile_columns, C.extent(1) - j);
    gemm_tile(alpha, rows(A, i, n), columns(B, j, m), beta, columns(rows(C, i, n), j, m));
  });
}

// C += alpha A B on and below the diagonal of a square C. Tiles on the diagonal are cut into strips that reach a little
// above it; what lies there afterwards is of no meaning.
// `done(i, n, j, m)` is told of every finished tile on the thread that made it.
template <class T, class Done>
void tiled_lower_triangle(executor* run_on, T alpha, matrix_view<T const> A, matrix_view<T const> B, matrix_view<T> C,
                          Done&& done) {
  index_t const extent = C.extent(0), tiles = ceil_div(extent, triangle_side);
  parallel_for(run_on, tiles * (tiles + 1) / 2, [&](index_t piece) {
    index_t down = 0, across = piece;
    while (across > down) across -= ++down;
    index_t const i = down * triangle_side, j = across * triangle_side;
    index_t const n = std::min(triangle_side, extent - i), m = std::min(triangle_side, extent - j);
    auto const block = [&](index_t first, index_t height, index_t width) {
      gemm_tile(alpha, rows(A, first, height), columns(B, j, width), T{1}, columns(rows(C, first, height), j, width));
    };
    if (i != j) {
      block(i, n, m);
    } else {
      for (index_t s = 0; s < n; s += triangle_strip) {
        index_t const height = std::min(triangle_strip, n - s);
        block(i + s, height, s + height);
      }
    }
    done(i, n, j, m);
  });
}

// H += alpha Xᵀ X: the lower triangle is computed, the upper one is its mirror image.
template <class T>
void tiled_gram_update(executor* run_on, T alpha, matrix_view<T const> X, matrix_view<T> H) {
  tiled_lower_triangle(run_on, alpha, transposed(X), X, H, [&](index_t i, index_t n, index_t j, index_t m) {
    auto const tile = columns(rows(H, i, n), j, m), image = columns(rows(H, j, m), i, n);
    // Blocks of this side keep the transposed writes within a few cache lines.
    constexpr index_t side = 16;
    for (index_t first_a = 0; first_a < n; first_a += side)
      for (index_t first_b = 0; first_b < m; first_b += side)
        for (index_t b = first_b; b < std::min(first_b + side, m); ++b)
          for (index_t a = std::max(first_a, i == j ? b + 1 : 0); a < std::min(first_a + side, n); ++a)
            image(b, a) = tile(a, b);
  });
}

}  // namespace detail

}  // namespace v0
}  // namespace slimtrim
