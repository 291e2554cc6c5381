// The column sweep of SparseGPT on the device: column_sweep.cuh's walk, which prunes, and rounds what is kept where there is
// a grid.
//
// Within N:M groups a thread chooses for its row when the walk reaches a group, in registers. A share of a block of columns
// is chosen by prune_share.cuh when the block is up to date, before it is walked.
#pragma once

#include <slimtrim/cuda/column_sweep.cuh>
#include <slimtrim/cuda/prune_share.cuh>
#include <slimtrim/cuda/select.cuh>
#include <slimtrim/slim/sparse/sparsegpt.hpp>

#include <cstdint>
#include <optional>
#include <vector>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Matrices of one shape in one sweep, columns as stored. `moving` holds what the sweep needs of columns that are done.
struct sparse_batch {
  sweep_batch sweep{};            // scales, zeros, groups and codes exactly where there is a grid
  std::uint64_t* kept = nullptr;  // [problems, rows, ceil(columns / 64)], bit c % 64 of word c / 64 set where column c is kept
  float* weights = nullptr;       // [problems, rows, columns], written: what the sweep leaves, zero where pruned
};

/// What the sweep chooses.
struct sparse_choice {
  std::optional<sparsity> pattern{};     // none: `kept` says it
  std::optional<uniform_grid> grid{};    // what is kept is rounded to it
  std::vector<index_t> heights{};        // rows of each matrix of a stack; none: one matrix
};

namespace detail {

// Keeps `keep` of every `Group` columns of a row, or with Group = 0 what the mask says.
template <int Group, bool Rounded>
struct pruning_choice {
  static constexpr bool has_codes = Rounded;
  std::uint64_t* kept = nullptr;
  float* weights = nullptr;
  int keep = 0;
  grid_choice rounding{};
  std::uint32_t bits = 0;  // of the panel

  // Eight columns of the mask: bits ascend from the lowest.
  [[nodiscard]] __device__ std::uint8_t* mask_bytes(sweep_batch const& batch, index_t problem, index_t row,
                                                    index_t position) const {
    index_t const words = ceil_div(batch.columns, 64);
    return reinterpret_cast<std::uint8_t*>(kept + (problem * batch.rows + row) * words) + position / 8;
  }
  __device__ __forceinline__ void begin_panel(sweep_batch const& batch, sweep_panel const& panel) {
    bits = 0;
    if (Group > 0 || !panel.live) return;
    std::uint8_t const* const from = mask_bytes(batch, panel.problem, panel.row, panel.first);
    bits = static_cast<std::uint32_t>(from[0]) | static_cast<std::uint32_t>(from[1]) << 8;
  }
  __device__ __forceinline__ void end_panel(sweep_batch const& batch, sweep_panel const& panel) {
    if (Group == 0 || !panel.live) return;
    std::uint8_t* const to = mask_bytes(batch, panel.problem, panel.row, panel.first);
    to[0] = static_cast<std::uint8_t>(bits);
    to[1] = static_cast<std::uint8_t>(bits >> 8);
  }
  // The bits of the group that begins with column i. Behind the last column nothing is better than anything, and nothing is kept.
  [[nodiscard]] __device__ __forceinline__ std::uint32_t best_of_group(sweep_panel const& panel, int i) const {
    float cost[chunk_elements];
    std::uint32_t there = 0;
#pragma unroll
    for (int k = 0; k < chunk_elements; ++k) {
      cost[k] = -1.0F;
      if (k >= Group || i + k >= panel.width) continue;
      cost[k] = slimtrim::detail::removal_cost(panel.value[i + k], panel.pivot(i + k));
      there |= 1U << k;
    }
    return best_of_groups<Group>(cost, keep) & there;
  }
  __device__ __forceinline__ float choose(sweep_batch const& batch, sweep_panel const& panel, int i, std::uint8_t* code) {
    if constexpr (Group > 0)
      if (i % Group == 0) bits |= best_of_group(panel, i) << i;
    float const left = (bits >> i & 1U) != 0 ? panel.value[i] : 0.0F;
    if constexpr (Rounded)
      return rounding.round(batch, panel, i, left, *code);
    else
      return left;
  }
  // Without a grid a column leaves a weight or an error, and the mask says which.
  [[nodiscard]] static __device__ __forceinline__ float remember(float error, float target) {
    return Rounded || target == 0 ? error : target;
  }
  __device__ __forceinline__ float finish(sweep_batch const& batch, index_t problem, index_t row, index_t position,
                                          float remembered, std::uint8_t const* code) const {
    float& weight = weights[(problem * batch.rows + row) * batch.columns + position];
    if constexpr (Rounded) {
      weight = rounding.grid.decode(*code, rounding.at(batch, problem, row, position));
      return rounding.finish(batch, problem, row, position, remembered, code);
    } else {
      bool const stays = (*mask_bytes(batch, problem, row, position) >> (position % 8) & 1U) != 0;
      weight = stays ? remembered : 0.0F;
      return stays ? 0.0F : remembered;
    }
  }
};

// For every problem and every matrix of its stack, what goes of a block of `width` columns.
inline void add_shares(sparse_batch const& batch, sparse_choice const& choice, index_t width, std::vector<pruned_share>& to) {
  for (index_t p = 0; p < batch.sweep.problems; ++p) {
    index_t first = 0;
    for (index_t const height : choice.heights) {
      to.push_back({p, first, height, static_cast<std::uint32_t>(choice.pattern->pruned_of(height * width))});
      first += height;
    }
  }
}

}  // namespace detail

/// The sweep of slimtrim::sparsegpt for every matrix of the batch, up to the order in which float sums are formed: in every
/// block of 128 columns prune what costs least, w² / R_jj² (a share of the block over all rows of a matrix, ties to the
/// higher index; or all but N of every M when the walk reaches them; or what `kept` does not have), then for j = 0, 1, ...:
/// q = 0 or W_j, or the nearest grid value of that, e = (W_j - q) / R_jj, W_k -= e R_jk for all k > j.
///
/// M is 4 or 8. In `tensor_float` costs and corrections are off by a part in two thousand of the corrections. Enqueued, but
/// for a list of shares that a rate uploads; deterministic. Cost: rows columns² multiply-adds a matrix, nearly all in
/// cuBLAS; for a rate up to seven more reads of the weights, six for their costs alone.
inline void sparse_sweep(context& on, sparse_batch const& batch, sparse_choice const& chosen,
                         float_precision precision = float_precision::single) {
  constexpr index_t block = sweep_shape::columns;
  sparse_choice choice = chosen;
  sweep_batch const& all = batch.sweep;
  if (choice.heights.empty()) choice.heights.push_back(all.rows);
  index_t stacked = 0, most_rows = 0;
  for (index_t const height : choice.heights) {
    stacked += height;
    most_rows = height > most_rows ? height : most_rows;
  }
  expects_equal(stacked, all.rows, "cuda::sparse_sweep", "rows of the stacked matrices");
  if (choice.grid) choice.grid->check();
  expects((all.codes != nullptr) == choice.grid.has_value(), "cuda::sparse_sweep", "codes: expected exactly for a grid");
  expects((all.zeros != nullptr) == (choice.grid && !choice.grid->symmetric), "cuda::sparse_sweep",
          "zeros: expected exactly for a grid with zero points");
  if (choice.pattern) choice.pattern->check();
  bool const structured = choice.pattern && choice.pattern->structured(), by_rate = choice.pattern && !structured;
  expects(!structured || choice.pattern->of == 4 || choice.pattern->of == 8, "cuda::sparse_sweep",
          "N:M: expected M of 4 or 8 on the device");
  if (all.problems == 0 || all.rows == 0 || all.columns == 0) return;

  // Shares of whole blocks, and behind them those of the last one.
  index_t const last = all.columns % block;
  std::vector<pruned_share> listed;
  if (by_rate) {
    detail::add_shares(batch, choice, block, listed);
    detail::add_shares(batch, choice, last, listed);
  }
  index_t const count = static_cast<index_t>(listed.size()) / 2;
  auto const shares = on.scratch_for<pruned_share>(2 * count);
  copy_to_device(on.stream(), listed.data(), 2 * count, shares.data());
  if (by_rate) check(cudaStreamSynchronize(on.stream()), "cuda::sparse_sweep");  // the list is read before it goes
  if (structured)
    check(cudaMemsetAsync(batch.kept, 0,
                          sizeof(std::uint64_t) * static_cast<std::size_t>(all.problems * all.rows * ceil_div(all.columns, 64)),
                          on.stream()),
          "cuda::sparse_sweep");
  auto const choose_share = [&](index_t begin, index_t end) {
    competing_columns const from{all.rows, all.columns, all.moving, all.factors, begin, static_cast<int>(end - begin)};
    prune_share(on, from, shares.data() + (end - begin == block ? 0 : count), count, most_rows, batch.kept);
  };
  auto const run = [&](auto choice_of_block) {
    choice_of_block.kept = batch.kept;
    choice_of_block.weights = batch.weights;
    if (structured) choice_of_block.keep = static_cast<int>(choice.pattern->keep);
    if (choice.grid) choice_of_block.rounding.grid = *choice.grid;
    detail::sweep(on, all, choice_of_block, block, choose_share, precision);
  };
  int const group = structured ? static_cast<int>(choice.pattern->of) : 0;
  if (choice.grid)
    group == 0 ? run(detail::pruning_choice<0, true>{})
               : (group == 4 ? run(detail::pruning_choice<4, true>{}) : run(detail::pruning_choice<8, true>{}));
  else
    group == 0 ? run(detail::pruning_choice<0, false>{})
               : (group == 4 ? run(detail::pruning_choice<4, false>{}) : run(detail::pruning_choice<8, false>{}));
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
