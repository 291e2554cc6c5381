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
inline constexpr index_t triangle_rows = 192;
inline constexpr index_t triangle_columns = 1152;
inline constexpr index_t triangle_leaf = 96;

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

// The square of side `n` at the diagonal element (i, i), by halves: what lies above the diagonal in squares of `triangle_leaf` is
// computed too, and is of no meaning.
template <class T>
void tiled_diagonal(T alpha, matrix_view<T const> A, matrix_view<T const> B, matrix_view<T> C, index_t i, index_t n) {
  index_t const top = n > triangle_leaf ? triangle_leaf * ceil_div(n, 2 * triangle_leaf) : n;
  if (top == n) return gemm_tile(alpha, rows(A, i, n), columns(B, i, n), T{1}, columns(rows(C, i, n), i, n));
  tiled_diagonal(alpha, A, B, C, i, top);
  gemm_tile(alpha, rows(A, i + top, n - top), columns(B, i, top), T{1}, columns(rows(C, i + top, n - top), i, top));
  tiled_diagonal(alpha, A, B, C, i + top, n - top);
}

// C += alpha A B on and below the diagonal of a square C, in strips of rows: wide tiles up to the strip's square on the diagonal
// (wide, because packing an operand costs as much as a tenth of the product of a square tile), then that square.
// `done(i, n, j, m)` is told of every finished tile on the thread that made it; i == j for the squares.
template <class T, class Done>
void tiled_lower_triangle(executor* run_on, T alpha, matrix_view<T const> A, matrix_view<T const> B, matrix_view<T> C,
                          Done&& done) {
  index_t const extent = C.extent(0), strips = ceil_div(extent, triangle_rows);
  auto const pieces_of = [](index_t strip) { return ceil_div(strip * triangle_rows, triangle_columns) + 1; };
  index_t pieces = 0;
  for (index_t strip = 0; strip < strips; ++strip) pieces += pieces_of(strip);
  parallel_for(run_on, pieces, [&](index_t piece) {
    // The last strips are the longest, and come first.
    index_t strip = strips - 1;
    for (; piece >= pieces_of(strip); --strip) piece -= pieces_of(strip);
    index_t const i = strip * triangle_rows, n = std::min(triangle_rows, extent - i);
    index_t const j = std::min(piece * triangle_columns, i), m = j < i ? std::min(triangle_columns, i - j) : n;
    if (j < i) gemm_tile(alpha, rows(A, i, n), columns(B, j, m), T{1}, columns(rows(C, i, n), j, m));
    else tiled_diagonal(alpha, A, B, C, i, n);
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
