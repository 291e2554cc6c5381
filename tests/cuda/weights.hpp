// Random weights of every kind in tiles, on the host and on the device, and the plain product of what they hold.
#pragma once

#include "cuda/support.hpp"

#include <slimtrim/cuda/tile_pack.hpp>

#include <cmath>
#include <vector>

namespace cuda_tests {

// A 4-bit weight with memory of its own; group 0: one scale a row.
struct code_matrix {
  std::vector<std::uint32_t> words;
  std::vector<float> scales;
  std::vector<std::uint8_t> zeros;
  quantized_view<> view{};

  code_matrix(index_t rows, index_t columns, index_t group, bool with_zeros, std::uint64_t seed) {
    view.rows = rows;
    view.columns = columns;
    view.block_columns = group > 0 ? group : columns;
    view.words_per_row = packed_words(columns, 4);
    words.resize(static_cast<std::size_t>(rows * view.words_per_row));
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint32_t>(random_bits_at(seed, 0, i));
    index_t const groups = ceil_div(columns, view.block_columns);
    for (index_t i = 0; i < rows * groups; ++i) {
      auto const at = static_cast<std::uint64_t>(i);
      scales.push_back(static_cast<float>(bfloat16(static_cast<float>(0.01 * (0.5 + uniform_at(seed, 1, at))))));
      zeros.push_back(static_cast<std::uint8_t>(random_bits_at(seed, 2, at) % 16));
    }
    view.words = words.data();
    view.scales = tensor_view<float const, 2>(scales.data(), rows, groups);
    if (with_zeros) view.zeros = tensor_view<std::uint8_t const, 2>(zeros.data(), rows, groups);
  }
};

inline tensor<bfloat16, 2> random_halves(index_t rows, index_t columns, std::uint64_t seed) {
  tensor<bfloat16, 2> x(rows, columns);
  for (index_t i = 0; i < rows * columns; ++i)
    x.view().data[i] = bfloat16(static_cast<float>(normal_at(seed, 3, static_cast<std::uint64_t>(i))));
  return x;
}

// The same tiles in device memory.
inline cuda::tile_weight_view upload_tiles(device_memory& device, cuda::host_tiles const& tiles) {
  cuda::tile_weight_view view = tiles.view;
  view.words = device.keep<cuda::words4>(tiles.words.data(), static_cast<index_t>(tiles.words.size()));
  if (!tiles.scales.empty()) view.scales = device.keep<std::uint16_t>(tiles.scales.data(), static_cast<index_t>(tiles.scales.size()));
  if (!tiles.zeros.empty()) view.zeros = device.keep<std::uint8_t>(tiles.zeros.data(), static_cast<index_t>(tiles.zeros.size()));
  return view;
}

// X Wᵀ in double, element by element of the tiles, and the same of magnitudes.
template <class T>
void plain_product(cuda::tile_weight_view const& w, matrix_view<T const> X, std::vector<double>& sums, std::vector<double>& scale) {
  for (index_t t = 0; t < X.extent(0); ++t)
    for (index_t r = 0; r < w.rows; ++r) {
      double sum = 0, size = 0;
      for (index_t c = 0; c < w.columns; ++c) {
        double const product = static_cast<double>(static_cast<float>(X(t, c))) * static_cast<double>(cuda::element_at(w, r, c));
        sum += product;
        size += std::abs(product);
      }
      sums.push_back(sum);
      scale.push_back(size);
    }
}

}  // namespace cuda_tests
