#include <doctest/doctest.h>
#include <slimtrim/core/random.hpp>
#include <slimtrim/linalg/weight.hpp>

#include <vector>

namespace linalg_weight_test {

using namespace slimtrim;

namespace {

// Sets code (r, c) bit by bit, unlike the reader under test.
void put_code(std::vector<std::uint32_t>& words, index_t words_per_row, int bits, index_t r, index_t c, unsigned code) {
  for (int b = 0; b < bits; ++b) {
    index_t const bit = c * bits + b;
    if ((code >> b) & 1U) words[static_cast<std::size_t>(r * words_per_row + bit / 32)] |= 1U << (bit % 32);
  }
}

}  // namespace

TEST_CASE("expanding a quantised weight gives (code - zero) * scale for every width, ragged groups included") {
  for (int bits : {1, 2, 3, 4, 5, 6, 7, 8}) {
    for (index_t group : {index_t{32}, index_t{128}, index_t{24}}) {
      index_t const rows = 3, columns = 131;
      index_t const per_row = packed_words(columns, bits), groups = ceil_div(columns, group);
      std::vector<std::uint32_t> words(static_cast<std::size_t>(rows * per_row), 0U);
      tensor<float, 2> scales(rows, groups);
      tensor<std::uint8_t, 2> zeros(rows, groups);
      std::vector<unsigned> codes;
      auto draw = [&](std::uint64_t stream, index_t i) { return random_bits_at(9, stream, static_cast<std::uint64_t>(i)); };
      for (index_t r = 0; r < rows; ++r) {
        for (index_t g = 0; g < groups; ++g) {
          scales(r, g) = 0.5F + static_cast<float>(draw(1, r * groups + g) % 1000) / 1000.0F;
          zeros(r, g) = static_cast<std::uint8_t>(draw(2, r * groups + g) % (1U << bits));
        }
        for (index_t c = 0; c < columns; ++c) {
          codes.push_back(static_cast<unsigned>(draw(3, r * columns + c) % (1U << bits)));
          put_code(words, per_row, bits, r, c, codes.back());
        }
      }
      for (bool with_zeros : {false, true}) {
        quantized_view<> q;
        q.rows = rows, q.columns = columns, q.bits = bits, q.words = words.data(), q.words_per_row = per_row;
        q.block_columns = group, q.scales = as_const(scales.view());
        if (with_zeros) q.zeros = as_const(zeros.view());
        auto const dense = expand(weight_view(q));
        for (index_t r = 0; r < rows; ++r)
          for (index_t c = 0; c < columns; ++c) {
            int const zero = with_zeros ? zeros(r, c / group) : 1 << (bits - 1);
            int const code = static_cast<int>(codes[static_cast<std::size_t>(r * columns + c)]);
            CHECK(dense(r, c) == static_cast<float>(code - zero) * scales(r, c / group));
            CHECK(q(r, c) == dense(r, c));
          }
      }
    }
  }
}

TEST_CASE("activation-order groups are looked up per column") {
  std::vector<std::uint32_t> const words{0x76543210U};
  tensor<float, 2> scales(1, 2);
  scales(0, 0) = 1.0F, scales(0, 1) = 10.0F;
  std::vector<std::int32_t> const order{1, 0, 1, 0, 1, 0, 1, 0};
  quantized_view<> q;
  q.rows = 1, q.columns = 8, q.bits = 4, q.words = words.data(), q.words_per_row = 1, q.block_columns = 4;
  q.scales = as_const(scales.view()), q.column_group = order.data();
  auto const dense = expand(weight_view(q));
  for (index_t c = 0; c < 8; ++c) CHECK(dense(0, c) == static_cast<float>(c - 8) * (c % 2 == 0 ? 10.0F : 1.0F));
}

TEST_CASE("dense and masked weights expand exactly, strided ones too") {
  tensor<bfloat16, 2> values(4, 6);
  for (index_t i = 0; i < 4; ++i)
    for (index_t j = 0; j < 6; ++j) values(i, j) = bfloat16(static_cast<float>(i * 6 + j) * 0.25F);
  auto const flipped = expand(weight_view(transposed(as_const(values.view()))));
  CHECK(flipped.extent(0) == 6);
  for (index_t i = 0; i < 6; ++i)
    for (index_t j = 0; j < 4; ++j) CHECK(flipped(i, j) == static_cast<float>(values(j, i)));

  std::vector<std::uint64_t> const bits{0b101010, 0b010101, 0, 0b111111};
  masked_view<bfloat16> masked;
  masked.values = as_const(values.view());
  masked.mask.rows = 4, masked.mask.columns = 6, masked.mask.words = bits.data(), masked.mask.words_per_row = 1;
  auto const kept = expand(weight_view(masked));
  for (index_t i = 0; i < 4; ++i)
    for (index_t j = 0; j < 6; ++j) {
      bool const keep = ((bits[static_cast<std::size_t>(i)] >> j) & 1U) != 0;
      CHECK(kept(i, j) == (keep ? static_cast<float>(values(i, j)) : 0.0F));
    }
}

TEST_CASE("rows can be expanded in the middle, and an empty weight is empty") {
  tensor<float, 2> values(5, 3);
  for (index_t i = 0; i < 15; ++i) values.view().data[i] = static_cast<float>(i);
  tensor<float, 2> middle(2, 3);
  expand_rows(weight_view(as_const(values.view())), 2, middle.view());
  for (index_t i = 0; i < 2; ++i)
    for (index_t j = 0; j < 3; ++j) CHECK(middle(i, j) == values(2 + i, j));
  CHECK(weight{}.empty());
}

TEST_CASE("a weight in a backend's own layout can still be read as rows of floats") {
  prepared_view prepared;
  prepared.rows = 3, prepared.columns = 4;
  prepared.expand = [](void const*, index_t row, float* out) {
    for (index_t c = 0; c < 4; ++c) out[c] = static_cast<float>(row * 4 + c);
  };
  auto const dense = expand(weight_view(prepared));
  for (index_t i = 0; i < 12; ++i) CHECK(dense.view().data[i] == static_cast<float>(i));
}

}  // namespace linalg_weight_test
