// N:M selection on the device: of every M inputs of a row the N with the largest |W| * norm are kept, ties to the lower
// index. With norms it is Wanda's score, without it is magnitude pruning.
#pragma once

#include <slimtrim/cuda/arch/warp.cuh>
#include <slimtrim/cuda/context.cuh>
#include <slimtrim/cuda/row_chunk.cuh>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {
namespace cuda {

namespace detail {

// Eight lanes own one word of the mask, 64 columns of one row, a lane 8 of them.
template <class T, int M>
__global__ void __launch_bounds__(256) select_groups(device_matrix<T const> W, bool wide, device_vector<float const> norms, int keep,
                                                     device_matrix<std::uint64_t> mask, device_report* report) {
  index_t const words = mask.extent(1), number = static_cast<index_t>(blockIdx.x) * 32 + threadIdx.x / 8;
  bool const live = number < words * W.extent(0);
  index_t const row = live ? number / words : 0, word = live ? number - row * words : 0;
  int const part = static_cast<int>(threadIdx.x % 8);
  index_t const first = word * 64 + 8 * part, columns = W.extent(1);
  std::uint32_t bits = 0;
  if (live && first < columns) {
    float score[chunk_elements];
    read_chunk(W, row, first, wide, 0.0F, score);
    bool finite = true;
#pragma unroll
    for (int i = 0; i < chunk_elements; ++i) {
      finite = finite && score[i] - score[i] == 0;
      // Behind the last column nothing is better than anything.
      float const norm = norms.data != nullptr && first + i < columns ? norms(first + i) : 1.0F;
      score[i] = first + i < columns ? (score[i] < 0 ? -score[i] : score[i]) * norm : -1.0F;
    }
    if (!finite) raise_to(&report->not_finite, static_cast<unsigned long long>(row * columns + first) + 1);
#pragma unroll
    for (int i = 0; i < chunk_elements; ++i) {
      int before = 0;
#pragma unroll
      for (int k = 0; k < M; ++k) {
        int const j = i / M * M + k;
        before += score[j] > score[i] || (score[j] == score[i] && j < i);
      }
      bits |= static_cast<std::uint32_t>(before < keep && first + i < columns) << i;
    }
  }
  std::uint64_t all = static_cast<std::uint64_t>(bits) << (8 * part);
  for (int lanes = 4; lanes > 0; lanes /= 2) all |= shuffle_xor(static_cast<unsigned long long>(all), lanes);
  if (live && part == 0) mask(row, word) = all;
}

}  // namespace detail

/// mask: [rows, ceil(columns / 64)], bit c % 64 of word c / 64 set where column c is kept. `of`: 4 or 8; a last group that is
/// shorter keeps min(keep, its size). W: [rows, columns] in float, bfloat16 or float16; norms: [columns] >= 0, or no data.
/// The bits of slimtrim::wanda_mask (with detail::scoring_norms) and slimtrim::magnitude_mask. Eight columns with a NaN or
/// infinity are reported at the next context::synchronise. One read of W.
template <class T>
void select(context& on, device_matrix<T const> W, device_vector<float const> norms, index_t keep, index_t of,
            device_matrix<std::uint64_t> mask) {
  expects((of == 4 || of == 8) && keep >= 0 && keep <= of, "cuda::select", "pattern: expected 0 .. M of M = 4 or 8");
  expects_equal(mask.extent(0), W.extent(0), "cuda::select", "rows of the mask");
  expects_equal(mask.extent(1), ceil_div(W.extent(1), 64), "cuda::select", "words of a row of the mask");
  if (norms.data != nullptr) expects_equal(norms.extent(0), W.extent(1), "cuda::select", "length of norms");
  launch_shape const shape{dim3(blocks_for(ceil_div(mask.size(), 32))), 256, 0};
  auto* const report = on.report();
  bool const wide = reads_chunks(W);
  of == 4 ? launch(on.stream(), shape, detail::select_groups<T, 4>, W, wide, norms, static_cast<int>(keep), mask, report)
          : launch(on.stream(), shape, detail::select_groups<T, 8>, W, wide, norms, static_cast<int>(keep), mask, report);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
