// N:M selection on the device: of every M inputs of a row the N with the largest |W| * norm are kept, ties to the lower
// index. With norms it is Wanda's score, without it is magnitude pruning.
#pragma once

#include <slimtrim/cuda/context.cuh>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// A thread owns one word of the mask: 64 columns of one row, 64 / M groups.
template <class T, int M>
__global__ void __launch_bounds__(256) select_groups(device_matrix<T const> W, device_vector<float const> norms, int keep,
                                                     device_matrix<std::uint64_t> mask, device_report* report) {
  index_t const words = mask.extent(1), at = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
  if (at >= words * W.extent(0)) return;
  index_t const row = at / words, word = at - row * words, columns = W.extent(1);
  std::uint64_t bits = 0;
  bool finite = true;
  for (int first = 0; first < 64; first += M) {
    float score[M];
#pragma unroll
    for (int i = 0; i < M; ++i) {
      index_t const c = word * 64 + first + i;
      float const value = c < columns ? static_cast<float>(W(row, c)) : 0.0F;
      finite = finite && value - value == 0;
      // Behind the last column nothing is better than anything.
      score[i] = c < columns ? (value < 0 ? -value : value) * (norms.data != nullptr ? norms(c) : 1.0F) : -1.0F;
    }
#pragma unroll
    for (int i = 0; i < M; ++i) {
      int before = 0;
#pragma unroll
      for (int j = 0; j < M; ++j) before += score[j] > score[i] || (score[j] == score[i] && j < i);
      bool const kept = before < keep && word * 64 + first + i < columns;
      bits |= static_cast<std::uint64_t>(kept) << (first + i);
    }
  }
  if (!finite) raise_to(&report->not_finite, static_cast<unsigned long long>(row * columns + word * 64) + 1);
  mask(row, word) = bits;
}

}  // namespace detail

/// mask: [rows, ceil(columns / 64)], bit c % 64 of word c / 64 set where column c is kept. `of`: 4 or 8; a last group that is
/// shorter keeps min(keep, its size). W: [rows, columns] in float, bfloat16 or float16; norms: [columns] >= 0, or no data.
/// The bits of slimtrim::wanda_mask (with detail::scoring_norms) and slimtrim::magnitude_mask. A word of W with a NaN or
/// infinity is reported at the next context::synchronise. One read of W.
template <class T>
void select(context& on, device_matrix<T const> W, device_vector<float const> norms, index_t keep, index_t of,
            device_matrix<std::uint64_t> mask) {
  expects((of == 4 || of == 8) && keep >= 0 && keep <= of, "cuda::select", "pattern: expected 0 .. M of M = 4 or 8");
  expects_equal(mask.extent(0), W.extent(0), "cuda::select", "rows of the mask");
  expects_equal(mask.extent(1), ceil_div(W.extent(1), 64), "cuda::select", "words of a row of the mask");
  if (norms.data != nullptr) expects_equal(norms.extent(0), W.extent(1), "cuda::select", "length of norms");
  launch_shape const shape{dim3(blocks_for(ceil_div(mask.size(), 256))), 256, 0};
  auto* const report = on.report();
  of == 4 ? launch(on.stream(), shape, detail::select_groups<T, 4>, W, norms, static_cast<int>(keep), mask, report)
          : launch(on.stream(), shape, detail::select_groups<T, 8>, W, norms, static_cast<int>(keep), mask, report);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
