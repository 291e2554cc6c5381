// Tiles of weights, read back from device memory.
#pragma once

#include <slimtrim/cuda/upload.cuh>
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

namespace cuda_tests {

struct downloaded_tiles {
  std::vector<slimtrim::cuda::words4> words;
  std::vector<std::uint16_t> scales;
  std::vector<std::uint8_t> zeros;
  slimtrim::cuda::tile_weight_view view;

  downloaded_tiles(slimtrim::cuda::context& on, slimtrim::cuda::device_tiles const& from)
      : words(static_cast<std::size_t>(from.words.size())),
        scales(static_cast<std::size_t>(from.scales.size())),
        zeros(static_cast<std::size_t>(from.zeros.size())),
        view(from.view) {
    REQUIRE(from.words.size() == view.words_needed());
    REQUIRE(from.scales.size() == view.scales_needed());
    REQUIRE(from.bytes() == view.bytes());
    slimtrim::cuda::copy_to_host(on.stream(), from.words.data(), from.words.size(), words.data());
    slimtrim::cuda::copy_to_host(on.stream(), from.scales.data(), from.scales.size(), scales.data());
    slimtrim::cuda::copy_to_host(on.stream(), from.zeros.data(), from.zeros.size(), zeros.data());
    view.words = words.data();
    view.scales = scales.data();
    view.zeros = zeros.empty() ? nullptr : zeros.data();
  }
  [[nodiscard]] float operator()(slimtrim::index_t r, slimtrim::index_t c) const { return slimtrim::cuda::element_at(view, r, c); }
};

}  // namespace cuda_tests
