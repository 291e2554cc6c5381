// The k largest elements of each row, in the order that every backend keeps: descending, ties to the lower index, NaN last.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/context.cuh>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

/// A candidate of a selection; `index` < 0: none.
template <class T>
struct candidate {
  T value{};
  index_t index = -1;
};

/// Whether a comes before b: larger first, ties to the lower index, NaN behind all numbers.
template <class T>
[[nodiscard]] SLIMTRIM_HD constexpr bool comes_before(candidate<T> a, candidate<T> b) {
  if (a.index < 0 || b.index < 0) return b.index < 0 && a.index >= 0;
  bool const a_nan = a.value != a.value, b_nan = b.value != b.value;
  if (a_nan || b_nan) return a_nan == b_nan ? a.index < b.index : b_nan;
  return a.value != b.value ? a.value > b.value : a.index < b.index;
}

/// The first of all lanes' candidates, in every lane.
template <class T>
[[nodiscard]] __device__ __forceinline__ candidate<T> first_of_warp(candidate<T> mine) {
  for (int mask = 16; mask > 0; mask /= 2) {
    candidate<T> const other{shuffle_xor(mine.value, mask), shuffle_xor(mine.index, mask)};
    if (comes_before(other, mine)) mine = other;
  }
  return mine;
}

namespace detail {

// One warp a row. Each round takes the first element behind the one taken before, so nothing needs to be marked.
template <class T>
__global__ void __launch_bounds__(128) top_k_rows(device_matrix<T const> X, device_matrix<std::int32_t> indices) {
  index_t const i = static_cast<index_t>(blockIdx.x) * 4 + threadIdx.x / 32;
  if (i >= X.extent(0)) return;
  candidate<T> last;
  for (index_t slot = 0; slot < indices.extent(1); ++slot) {
    candidate<T> best;
    for (index_t j = threadIdx.x % 32; j < X.extent(1); j += 32) {
      candidate<T> const here{X(i, j), j};
      if ((slot == 0 || comes_before(last, here)) && comes_before(here, best)) best = here;
    }
    last = first_of_warp(best);
    if (threadIdx.x % 32 == 0) indices(i, slot) = static_cast<std::int32_t>(last.index);
  }
}

}  // namespace detail

/// indices(i, ·): the k largest of row i. X: [n, m]; indices: [n, k], k <= m. One warp a row reads it k times: for few k
/// or short rows.
template <class T>
void top_k(context& on, device_matrix<T const> X, device_matrix<std::int32_t> indices) {
  launch(on.stream(), {dim3(blocks_for(ceil_div(X.extent(0), 4))), 128, 0}, detail::top_k_rows<T>, X, indices);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
