// The engine of GPTQ and SparseGPT: fix the columns of W one after another, and let the columns not yet fixed make up for it.
//
// Rows are independent given the factor R (H⁻¹ = Rᵀ R). A block of columns is worked through in tiles of 16 rows with the
// rows in vector lanes; its effect on everything to the right is one matrix product ("lazy batch update", GPTQ section 3.3).
#pragma once

#include <slimtrim/backend/tensor_backend.hpp>
#include <slimtrim/core/executor.hpp>
#include <slimtrim/tensor/buffer.hpp>
#include <slimtrim/tensor/subview.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace slimtrim {
inline namespace v0 {

namespace detail {

// Eight floats as one value (a GNU vector, which g++, clang and nvcc's host pass share). Loops over the lanes of a tile are
// unrolled by g++ before it vectorises, and stay scalar; this says what is meant.
using float_lanes [[gnu::vector_size(32), gnu::aligned(4), gnu::may_alias]] = float;

}  // namespace detail

/// Sixteen rows of a block of columns during a sweep, transposed: value(column, lane).
struct sweep_tile {
  static constexpr index_t lanes = 16;
  index_t first_row = 0;
  index_t rows = 0;   // lanes in use, at most 16; the others hold zeros
  index_t begin = 0;  // columns begin .. end - 1 of the sweep order
  index_t end = 0;
  float* values = nullptr;

  [[nodiscard]] float* column(index_t j) const { return values + (j - begin) * lanes; }
};

/// Decides the final value of each element during a sweep.
/// `begin_block(W, begin, end)` is called once a block, serially, with W up to date from column `begin` on;
/// `choose(tile, j, target)` writes the final values of column j of the tile (all 16 lanes), from any thread.
template <class C>
concept column_chooser = requires(C& chooser, matrix_view<float const> W, index_t at, sweep_tile const& tile, float* target) {
  chooser.begin_block(W, at, at);
  chooser.choose(tile, at, target);
};

/// Cuts `columns` into blocks of at most `block`, such that a group of `group` columns starts either at the start of a
/// block or lies within one; so its weights are up to date when it is reached.
[[nodiscard]] inline std::vector<index_t> sweep_blocks(index_t columns, index_t block, index_t group) {
  std::vector<index_t> cuts{0};
  while (cuts.back() < columns) {
    index_t const begin = cuts.back();
    index_t end = std::min(columns, begin + block);
    if (group > 0 && end < columns) {
      index_t const last_start = (end - 1) / group * group;
      bool const straddles = last_start > begin && last_start + group > end;
      if (straddles) end = last_start;
    }
    cuts.push_back(end);
  }
  return cuts;
}

/// For j = 0, 1, ...: q = chosen(W_j), e = (W_j - q) / R_jj, W_k -= e R_jk for all k > j; W_j = q.
/// (Frantar et al. 2022, arXiv 2210.17323, Algorithm 1; Frantar and Alistarh 2023, arXiv 2301.00774, Algorithm 1.)
///
/// W: [n, c], columns in sweep order, updated in place to the chosen values. R: [c, c] upper. losses: [n], each
/// row's sum of e², which is (W - Q)_r H (W - Q)_rᵀ for the H that R came from. Cost n c² multiply-adds; float throughout,
/// losses added up in double by block. Byte-identical for any executor.
template <host_backend B, column_chooser C>
void column_sweep(B const& backend, matrix_view<float> W, matrix_view<float const> R, std::vector<index_t> const& cuts,
                  C& chooser, vector_view<double> losses) {
  constexpr index_t lanes = sweep_tile::lanes;
  index_t const n = W.extent(0), c = W.extent(1);
  index_t widest = 0;
  for (std::size_t b = 0; b + 1 < cuts.size(); ++b) widest = std::max(widest, cuts[b + 1] - cuts[b]);
  matrix<float> errors(n, widest);
  for (index_t i = 0; i < n; ++i) losses(i) = 0;
  for (std::size_t b = 0; b + 1 < cuts.size(); ++b) {
    index_t const begin = cuts[b], end = cuts[b + 1], width = end - begin;
    chooser.begin_block(as_const(W), begin, end);
    auto error = columns(errors.view(), 0, width);
    parallel_for(backend.run_on(), ceil_div(n, lanes), [&](index_t piece) {
      buffer<float> storage(width * lanes);
      sweep_tile tile{piece * lanes, std::min(lanes, n - piece * lanes), begin, end, storage.data()};
      float sum[lanes] = {};
      for (index_t l = 0; l < lanes; ++l) {
        float const* const from = l < tile.rows ? &W(tile.first_row + l, begin) : nullptr;
        for (index_t k = 0; k < width; ++k) storage[k * lanes + l] = from != nullptr ? from[k * W.stride(1)] : 0.0F;
      }
      for (index_t j = begin; j < end; ++j) {
        float target[lanes], e[lanes];
        chooser.choose(tile, j, target);
        float* const here = tile.column(j);
        float const pivot = R(j, j);
        for (index_t l = 0; l < lanes; ++l) {
          e[l] = (here[l] - target[l]) / pivot;
          sum[l] += e[l] * e[l];
          here[l] = target[l];
        }
        auto const* const both = reinterpret_cast<detail::float_lanes const*>(e);
        detail::float_lanes const low = both[0], high = both[1];
        float const* const r = R.data + j * R.stride(0);
        for (index_t k = j + 1; k < end; ++k) {
          auto* const there = reinterpret_cast<detail::float_lanes*>(tile.column(k));
          float const factor = r[k * R.stride(1)];
          there[0] -= low * factor;
          there[1] -= high * factor;
        }
        for (index_t l = 0; l < tile.rows; ++l) error(tile.first_row + l, j - begin) = e[l];
      }
      for (index_t l = 0; l < tile.rows; ++l) {
        float* const to = &W(tile.first_row + l, begin);
        for (index_t k = 0; k < width; ++k) to[k * W.stride(1)] = storage[k * lanes + l];
        losses(tile.first_row + l) += static_cast<double>(sum[l]);
      }
    });
    if (end < c)
      backend.gemm(-1.0F, as_const(error), columns(rows(R, begin, width), end, c - end), 1.0F, columns(W, end, c - end));
  }
}

}  // namespace v0
}  // namespace slimtrim
