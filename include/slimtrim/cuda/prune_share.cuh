// The cheapest weights of a block of columns, over all rows of a matrix, go: a radix select. The leading bits of all costs
// are counted, then the next bits of those that the cut falls among, until it is known.
//
// A key is the bits of a cost and, below them, the element's number from the end. So no two are equal, and of equal costs
// the later go first, as with slimtrim::detail::cut_of.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/elementwise.cuh>
#include <slimtrim/slim/sparse/sparsegpt.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// Rows of a problem whose weights compete with each other, and how many of a block go.
struct pruned_share {
  index_t problem = 0;
  index_t first_row = 0;
  index_t rows = 0;
  std::uint32_t pruned = 0;
};

/// Columns begin .. begin + width - 1 of weights that are up to date; everything contiguous in device memory.
struct competing_columns {
  index_t rows = 0;  // of a problem
  index_t columns = 0;
  float const* moving = nullptr;   // [problems, rows, columns]
  float const* factors = nullptr;  // [problems, columns, columns]: R
  index_t begin = 0;               // a multiple of 64
  int width = 0;                   // at most 128
};

namespace detail {

// How the select's kernels are shaped.
struct prune_shape {
  static constexpr int threads = 256, rows = 128, columns = 128;  // of a block
  static constexpr int key_bits = 63, digit_bits = 11, digits = 1 << digit_bits;
};

// Keys below `limit` go, once it is known; before, `open` of the keys that begin with `prefix`, and all below those.
struct share_cut {
  std::uint64_t prefix = 0, limit = 0;
  std::uint32_t open = 0;
};

struct begin_cut {
  pruned_share const* shares;
  share_cut* cuts;
  SLIMTRIM_HD void operator()(index_t s, index_t) const { cuts[s] = {0, 0, shares[s].pruned}; }
};

// use(row, j, key) for the rows of a share that are the block's, a warp a row, a lane every 32nd column up to a multiple of 64.
// What has no column has the one bit that no key has.
template <class Use>
__device__ __forceinline__ void visit_keys(competing_columns const& from, pruned_share const& share, Use const& use) {
  __shared__ float pivots[prune_shape::columns];
  int const thread = static_cast<int>(threadIdx.x);
  for (int j = thread; j < from.width; j += prune_shape::threads) {
    index_t const column = from.begin + j;
    pivots[j] = from.factors[(share.problem * from.columns + column) * from.columns + column];
  }
  sync_block();
  index_t const first = static_cast<index_t>(blockIdx.x) * prune_shape::rows, rest = share.rows - first;
  index_t const last = first + (rest < prune_shape::rows ? rest : prune_shape::rows), all = share.rows * from.width;
  for (index_t row = first + thread / 32; row < last; row += prune_shape::threads / 32) {
    float const* const w = from.moving + (share.problem * from.rows + share.first_row + row) * from.columns + from.begin;
    for (int j = thread % 32; j < (from.width + 63) / 64 * 64; j += 32) {
      std::uint64_t key = std::uint64_t{1} << prune_shape::key_bits;
      if (j < from.width) {
        std::uint32_t const cost = bits_as<std::uint32_t>(slimtrim::detail::removal_cost(w[j], pivots[j])) & 0x7fffffffU;
        key = static_cast<std::uint64_t>(cost) << 32 | static_cast<std::uint32_t>(all - 1 - (row * from.width + j));
      }
      use(row, j, key);
    }
  }
}

// Counts the bits shift .. above - 1 of the keys whose bits from `above` on are the cut's. Grid: 128 rows, share.
static __global__ void __launch_bounds__(prune_shape::threads)
    count_digits(competing_columns from, pruned_share const* shares, share_cut const* cuts, int above, int shift,
                 unsigned int* counts) {
  __shared__ int mine[prune_shape::digits];
  share_cut const cut = cuts[blockIdx.y];
  if (cut.open == 0) return;
  for (int d = static_cast<int>(threadIdx.x); d < prune_shape::digits; d += prune_shape::threads) mine[d] = 0;
  sync_block();
  std::uint32_t const last = (1U << (above - shift)) - 1U;
  visit_keys(from, shares[blockIdx.y], [&](index_t, int, std::uint64_t key) {
    if (key >> above == cut.prefix) count_up(&mine[static_cast<std::uint32_t>(key >> shift) & last]);
  });
  sync_block();
  for (int d = static_cast<int>(threadIdx.x); d < prune_shape::digits; d += prune_shape::threads)
    if (mine[d] > 0) add_to(&counts[blockIdx.y * prune_shape::digits + d], static_cast<unsigned int>(mine[d]));
}

// Lengthens each cut's prefix by the digit that it falls into, and leaves zeros for the next count. Grid: share.
static __global__ void __launch_bounds__(prune_shape::threads)
    narrow_cuts(share_cut* cuts, int above, int shift, unsigned int* counts) {
  constexpr int each = prune_shape::digits / prune_shape::threads;
  __shared__ unsigned int sums[prune_shape::threads];
  unsigned int* const of_share = counts + blockIdx.x * prune_shape::digits;
  unsigned int* const mine = of_share + threadIdx.x * each;
  unsigned int sum = 0;
  for (int d = 0; d < each; ++d) sum += mine[d];
  sums[threadIdx.x] = sum;
  sync_block();
  if (threadIdx.x == 0 && cuts[blockIdx.x].open > 0) {
    share_cut cut = cuts[blockIdx.x];
    int run = 0;
    for (; sums[run] < cut.open; ++run) cut.open -= sums[run];
    int digit = run * each;
    for (; of_share[digit] < cut.open; ++digit) cut.open -= of_share[digit];
    cut.prefix = cut.prefix << (above - shift) | static_cast<std::uint64_t>(digit);
    if (of_share[digit] == cut.open) {  // all of them go: no more needs to be known
      cut.limit = (cut.prefix + 1) << shift;
      cut.open = 0;
    }
    cuts[blockIdx.x] = cut;
  }
  sync_block();
  for (int d = 0; d < each; ++d) mine[d] = 0;
}

// The bits of what stays. Grid: 128 rows, share.
static __global__ void __launch_bounds__(prune_shape::threads)
    mark_kept(competing_columns from, pruned_share const* shares, share_cut const* cuts, std::uint64_t* kept) {
  pruned_share const share = shares[blockIdx.y];
  std::uint64_t const limit = cuts[blockIdx.y].limit;
  index_t const words = ceil_div(from.columns, 64);
  int const lane = static_cast<int>(threadIdx.x % 32);
  visit_keys(from, share, [&](index_t row, int j, std::uint64_t key) {
    std::uint32_t const bits = ballot(key >= limit && key >> prune_shape::key_bits == 0);
    auto* const to = reinterpret_cast<std::uint8_t*>(kept + (share.problem * from.rows + share.first_row + row) * words);
    if (lane < 4) to[(from.begin + j - lane) / 8 + lane] = static_cast<std::uint8_t>(bits >> (8 * lane));
  });
}

}  // namespace detail

/// Of each share's weights in the columns of `from` the `pruned` least by w² / R_jj² go, of equal ones the later in row-major
/// order: the choice of slimtrim::sparsegpt for a block of columns, and the same for the same weights and factors.
///
/// shares: [count] in device memory, no row in two; most_rows: of a share. kept: [problems, rows, ceil(columns / 64)], bit c % 64 of word
/// c / 64 set where column c is kept; whole words of the block are written. Fewer than 2^32 weights a share. Enqueued; deterministic, as
/// only integers are added in any order. Cost: up to seven reads of the block; scratch 8 KB a share.
inline void prune_share(context& on, competing_columns const& from, pruned_share const* shares, index_t count,
                        index_t most_rows, std::uint64_t* kept) {
  using detail::prune_shape;
  expects(from.begin % 64 == 0 && from.width <= prune_shape::columns, "cuda::prune_share",
          "columns: expected at most 128 from a multiple of 64 on");
  expects(count <= 65535, "cuda::prune_share", "shares: expected at most 65535");
  expects(most_rows * prune_shape::columns < (index_t{1} << 32), "cuda::prune_share", "rows: expected fewer than 2^25");
  if (count == 0 || from.width == 0) return;
  auto const cuts = on.scratch_for<detail::share_cut>(count);
  auto const counts = on.scratch_for<unsigned int>(count * prune_shape::digits);
  for_each_element(on, count, 1, true, detail::begin_cut{shares, cuts.data()});
  check(cudaMemsetAsync(counts.data(), 0, sizeof(unsigned int) * static_cast<std::size_t>(counts.size()), on.stream()),
        "cuda::prune_share");
  dim3 const blocks(blocks_for(ceil_div(most_rows, prune_shape::rows)), static_cast<unsigned>(count));
  for (int above = prune_shape::key_bits; above > 0;) {
    int const shift = above > prune_shape::digit_bits ? above - prune_shape::digit_bits : 0;
    launch(on.stream(), {blocks, prune_shape::threads, 0}, detail::count_digits, from, shares,
           static_cast<detail::share_cut const*>(cuts.data()), above, shift, counts.data());
    launch(on.stream(), {dim3(blocks_for(count)), prune_shape::threads, 0}, detail::narrow_cuts, cuts.data(), above, shift,
           counts.data());
    above = shift;
  }
  launch(on.stream(), {blocks, prune_shape::threads, 0}, detail::mark_kept, from, shares,
         static_cast<detail::share_cut const*>(cuts.data()), kept);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
