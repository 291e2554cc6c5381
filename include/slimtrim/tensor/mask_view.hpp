// A weight matrix with a bit for each element: set bits are kept, clear bits are zero.
#pragma once

#include <slimtrim/core/index.hpp>
#include <slimtrim/core/memory_space.hpp>
#include <slimtrim/core/numeric.hpp>
#include <slimtrim/tensor/tensor_view.hpp>

#include <cstdint>

namespace slimtrim {
inline namespace v0 {

/// Bits of a mask: [rows, columns]; row r starts at word r * words_per_row, column c is bit c % 64 of its word.
template <space Space = space::host>
struct mask_view {
  static constexpr space memory = Space;
  index_t rows = 0;
  index_t columns = 0;
  std::uint64_t const* words = nullptr;
  index_t words_per_row = 0;

  [[nodiscard]] SLIMTRIM_HD constexpr index_t extent(int d) const { return d == 0 ? rows : columns; }
  [[nodiscard]] SLIMTRIM_HD constexpr bool operator()(index_t r, index_t c) const {
    return ((words[r * words_per_row + (c >> 6)] >> (c & 63)) & 1U) != 0;
  }
};

/// W[r, c] = values(r, c) where the mask keeps it, else 0.
template <real_scalar T, space Space = space::host>
struct masked_view {
  static constexpr space memory = Space;
  tensor_view<T const, 2, Space> values{};
  mask_view<Space> mask{};

  [[nodiscard]] SLIMTRIM_HD constexpr index_t extent(int d) const { return mask.extent(d); }
  [[nodiscard]] SLIMTRIM_HD constexpr float operator()(index_t r, index_t c) const {
    return mask(r, c) ? static_cast<float>(values(r, c)) : 0.0F;
  }
};

}  // namespace v0
}  // namespace slimtrim
