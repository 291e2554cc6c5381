#include <slimtrim/core/random.hpp>
#include <slimtrim/tensor/mask_view.hpp>
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace tensor_mask_view_test {

using namespace slimtrim;

static_assert(mask_view<space::device>::memory == space::device);
static_assert(masked_view<bfloat16>::memory == space::host);

TEST_CASE("bits are read from the word and position of their column, rows padded") {
  index_t const rows = 3, columns = 130, words_per_row = 4;
  std::vector<bool> kept(static_cast<std::size_t>(rows * columns));
  std::vector<std::uint64_t> words(static_cast<std::size_t>(rows * words_per_row), 0);
  for (index_t r = 0; r < rows; ++r)
    for (index_t c = 0; c < columns; ++c) {
      bool const bit = random_bits_at(2, 0, static_cast<std::uint64_t>(r * columns + c)) & 1U;
      kept[static_cast<std::size_t>(r * columns + c)] = bit;
      if (bit) words[static_cast<std::size_t>(r * words_per_row + c / 64)] |= std::uint64_t{1} << (c % 64);
    }
  mask_view<> const mask{rows, columns, words.data(), words_per_row};
  for (index_t r = 0; r < rows; ++r)
    for (index_t c = 0; c < columns; ++c) CHECK(mask(r, c) == kept[static_cast<std::size_t>(r * columns + c)]);
  CHECK(mask.extent(0) == rows);
  CHECK(mask.extent(1) == columns);
}

TEST_CASE("a masked weight is its value where kept and zero elsewhere, even over NaN") {
  bfloat16 const values[4] = {bfloat16(1.5F), bfloat16(NAN), bfloat16(-2.0F), bfloat16(4.0F)};
  std::uint64_t const words[2] = {0b01, 0b10};
  masked_view<bfloat16> const w{matrix_view<bfloat16 const>(values, 2, 2), {2, 2, words, 1}};
  CHECK(w(0, 0) == 1.5F);
  CHECK(w(0, 1) == 0.0F);
  CHECK(w(1, 0) == 0.0F);
  CHECK(w(1, 1) == 4.0F);
  CHECK(w.extent(1) == 2);
}

}  // namespace tensor_mask_view_test
