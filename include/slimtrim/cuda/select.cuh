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

// Words of the mask that eight lanes make one after another.
inline constexpr int select_words = 8;

// Bit i: fewer than `keep` of the M scores of i's group come before score i. Eight counters stand in the nibbles of one word. Of
// two scores the earlier comes first unless the later is larger, so counters begin as if no later one were, and each that is
// moves one count from its own counter to the other.
template <int M>
[[nodiscard]] SLIMTRIM_HD constexpr std::uint32_t best_of_groups(float const (&score)[chunk_elements], int keep) {
  std::uint32_t before = M == 4 ? 0x32103210U : 0x76543210U;
#pragma unroll
  for (int i = 0; i < chunk_elements; ++i)
#pragma unroll
    for (int j = i + 1; j < (i / M + 1) * M; ++j)
      if (score[j] > score[i]) before += (1U << (4 * i)) - (1U << (4 * j));
  // Bit 3 of a nibble is set where its counter is at least `keep`; the others' bits move side by side.
  std::uint32_t bits = ~(before + static_cast<std::uint32_t>(8 - keep) * 0x11111111U) >> 3 & 0x11111111U;
  bits = (bits | bits >> 3) & 0x03030303U;
  bits = (bits | bits >> 6) & 0x000f000fU;
  return (bits | bits >> 12) & 0xffU;
}

// Eight lanes own `select_words` words of the mask of one row, a lane 8 columns of each. Wide: rows, and norms where there are
// any, are read 16 bytes at a time, and every lane has 8 columns or none.
template <class T, int M, bool Wide>
__global__ void __launch_bounds__(256) select_groups(device_matrix<T const> W, device_vector<float const> norms, int keep,
                                                     device_matrix<std::uint64_t> mask, device_report* report) {
  int const words = static_cast<int>(mask.extent(1)), columns = static_cast<int>(W.extent(1));
  int const runs = (words + select_words - 1) / select_words, part = static_cast<int>(threadIdx.x % 8);
  index_t const number = static_cast<index_t>(blockIdx.x) * 32 + threadIdx.x / 8, row = number / runs;
  if (row >= W.extent(0)) return;
  int const begin = static_cast<int>(number - row * runs) * select_words;
  int const end = words - begin < select_words ? words : begin + select_words;
  auto* to = reinterpret_cast<std::uint8_t*>(&mask(row, begin)) + part;
  index_t const step = 8 * mask.stride(1);
  for (int first = begin * 64 + chunk_elements * part; first < 64 * end; first += 64, to += step) {
    std::uint32_t bits = 0;
    if (first < columns) {
      float score[chunk_elements];
      read_chunk(W, row, first, Wide, 0.0F, score);
      std::uint32_t largest = 0;  // NaN and infinity come out on top
#pragma unroll
      for (int i = 0; i < chunk_elements; ++i) {
        std::uint32_t const magnitude = bits_as<std::uint32_t>(score[i]) & 0x7fffffffU;
        largest = magnitude > largest ? magnitude : largest;
        score[i] = bits_as<float>(magnitude);
      }
      if (largest >= 0x7f800000U) raise_to(&report->not_finite, static_cast<unsigned long long>(row * W.extent(1) + first) + 1);
      if (norms.data != nullptr) {
        float norm[chunk_elements];
        read_chunk(device_matrix<float const>(norms.data, {1, W.extent(1)}, {0, norms.stride(0)}), 0, first, Wide, 0.0F, norm);
#pragma unroll
        for (int i = 0; i < chunk_elements; ++i) score[i] *= norm[i];
      }
      if constexpr (Wide) {
        bits = best_of_groups<M>(score, keep);
      } else {
        // Behind the last column nothing is better than anything, and nothing is kept.
        std::uint32_t there = 0;
#pragma unroll
        for (int i = 0; i < chunk_elements; ++i) {
          if (first + i >= columns) score[i] = -1.0F;
          there |= static_cast<std::uint32_t>(first + i < columns) << i;
        }
        bits = best_of_groups<M>(score, keep) & there;
      }
    }
    *to = static_cast<std::uint8_t>(bits);  // columns ascend from a word's lowest bit
  }
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
  expects(W.extent(1) < (index_t{1} << 31), "cuda::select", "columns: expected fewer than 2^31");
  expects_equal(mask.extent(0), W.extent(0), "cuda::select", "rows of the mask");
  expects_equal(mask.extent(1), ceil_div(W.extent(1), 64), "cuda::select", "words of a row of the mask");
  if (norms.data != nullptr) expects_equal(norms.extent(0), W.extent(1), "cuda::select", "length of norms");
  index_t const runs = mask.extent(0) * ceil_div(mask.extent(1), index_t{detail::select_words});
  launch_shape const shape{dim3(blocks_for(ceil_div(runs, 32))), 256, 0};
  auto* const report = on.report();
  bool const wide = reads_chunks(W) && (norms.data == nullptr || norms.stride(0) == 1) &&
                    reinterpret_cast<std::uintptr_t>(norms.data) % 16 == 0;
  auto const run = [&](auto kernel) {
    launch(on.stream(), shape, kernel, W, norms, static_cast<int>(keep), mask, report);
  };
  if (of == 4)
    wide ? run(detail::select_groups<T, 4, true>) : run(detail::select_groups<T, 4, false>);
  else
    wide ? run(detail::select_groups<T, 8, true>) : run(detail::select_groups<T, 8, false>);
}

}  // namespace cuda
}  // namespace v0
}  // namespace slimtrim
