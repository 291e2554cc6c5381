#include <slimtrim/core/random.hpp>
#include <slimtrim/tensor/quantized_view.hpp>
#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

namespace tensor_quantized_view_test {

using namespace slimtrim;

static_assert(quantized_view<space::device>::memory == space::device);

namespace {

// Writes the codes bit by bit, which is the definition of the packing.
std::vector<std::uint32_t> pack_by_bits(std::vector<std::uint32_t> const& codes, index_t rows, index_t columns,
                                        int bits, index_t words_per_row) {
  std::vector<std::uint32_t> words(static_cast<std::size_t>(rows * words_per_row), 0);
  for (index_t r = 0; r < rows; ++r)
    for (index_t c = 0; c < columns; ++c)
      for (int b = 0; b < bits; ++b) {
        index_t const position = c * bits + b;
        std::uint32_t const bit = (codes[static_cast<std::size_t>(r * columns + c)] >> b) & 1U;
        words[static_cast<std::size_t>(r * words_per_row + position / 32)] |= bit << (position % 32);
      }
  return words;
}

}  // namespace

TEST_CASE("codes of every width come back, straddling words and odd row lengths included") {
  for (int bits = 1; bits <= 8; ++bits)
    for (index_t columns : {1, 7, 32, 33, 96}) {
      index_t const rows = 3, words_per_row = packed_words(columns, bits);
      std::vector<std::uint32_t> codes(static_cast<std::size_t>(rows * columns));
      for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = random_block_at(1, 0, i).word[0] & ((1U << bits) - 1);
      auto const words = pack_by_bits(codes, rows, columns, bits, words_per_row);
      quantized_view<> q;
      q.rows = rows;
      q.columns = columns;
      q.bits = bits;
      q.words = words.data();
      q.words_per_row = words_per_row;
      for (index_t r = 0; r < rows; ++r)
        for (index_t c = 0; c < columns; ++c) REQUIRE(q.code(r, c) == codes[static_cast<std::size_t>(r * columns + c)]);
    }
}

TEST_CASE("packed_words is the number of bits over 32, rounded up") {
  CHECK(packed_words(0, 4) == 0);
  CHECK(packed_words(8, 4) == 1);
  CHECK(packed_words(9, 4) == 2);
  CHECK(packed_words(32, 3) == 3);
}

TEST_CASE("elements are (code - zero) * scale of their block, with and without zeros and column order") {
  // Two rows of four 4-bit codes: 0 1 2 3 and 12 13 14 15; groups of two columns.
  std::uint32_t const words[2] = {0x3210U, 0xfedcU};
  float const scales[4] = {0.5F, 2.0F, 1.0F, 4.0F};
  std::uint8_t const zeros[4] = {1, 0, 15, 8};
  quantized_view<> q;
  q.rows = 2;
  q.columns = 4;
  q.bits = 4;
  q.words = words;
  q.words_per_row = 1;
  q.block_columns = 2;
  q.scales = matrix_view<float const>(scales, 2, 2);
  CHECK(q(0, 0) == (0 - 8) * 0.5F);
  CHECK(q(0, 3) == (3 - 8) * 2.0F);
  CHECK(q(1, 1) == (13 - 8) * 1.0F);
  q.zeros = matrix_view<std::uint8_t const>(zeros, 2, 2);
  CHECK(q(0, 0) == (0 - 1) * 0.5F);
  CHECK(q(1, 0) == (12 - 15) * 1.0F);
  CHECK(q(1, 3) == (15 - 8) * 4.0F);
  std::int32_t const order[4] = {1, 0, 1, 0};
  q.column_group = order;
  CHECK(q(0, 0) == 0.0F);
  CHECK(q(0, 1) == (1 - 1) * 0.5F);
  CHECK(q(1, 2) == (14 - 8) * 4.0F);
  CHECK(q.extent(0) == 2);
  CHECK(q.extent(1) == 4);
}

TEST_CASE("a block may span rows") {
  std::uint32_t const words[2] = {0x0fU, 0xf0U};
  float const scale[1] = {2.0F};
  quantized_view<> q;
  q.rows = 2;
  q.columns = 2;
  q.words = words;
  q.words_per_row = 1;
  q.block_rows = 2;
  q.block_columns = 2;
  q.scales = matrix_view<float const>(scale, 1, 1);
  CHECK(q(0, 0) == 14.0F);
  CHECK(q(1, 0) == -16.0F);
  CHECK(q(1, 1) == 14.0F);
}

}  // namespace tensor_quantized_view_test
