// The layout of 2:4 sparse tiles, exhaustively: every kept element and every pair of places has a place of its own, and
// reading gives back what was packed.
#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/tile_pack.hpp>
#include <doctest/doctest.h>

#include <set>
#include <utility>
#include <vector>

namespace cuda_sparse_tile_test {

using namespace slimtrim;

TEST_CASE("sparse_tile: chunks and groups of columns are each other's inverse") {
  std::set<int> groups;
  for (int step = 0; step < cuda::sparse_tile::steps; ++step)
    for (int chunk = 0; chunk < cuda::sparse_tile::chunks; ++chunk) {
      int const group = cuda::group_of_chunk(step, chunk);
      REQUIRE((group >= 0 && group < 16));
      groups.insert(group);
      auto const back = cuda::chunk_of_group(group);
      CHECK(back.step == step);
      CHECK(back.chunk == chunk);
    }
  CHECK(groups.size() == 16);
}

TEST_CASE("sparse_tile: every code and every pair of places stands alone and fills the tile") {
  std::set<std::pair<int, int>> codes, bits;  // (word, nibble), (word, shift)
  for (int row = 0; row < 16; ++row)
    for (int step = 0; step < cuda::sparse_tile::steps; ++step)
      for (int chunk = 0; chunk < cuda::sparse_tile::chunks; ++chunk) {
        for (int k = 0; k < 2; ++k) {
          auto const at = cuda::place_of_sparse_code(row, chunk, k);
          codes.insert({2 * at.lane + step, at.nibble});
        }
        auto const at = cuda::place_of_sparse_bits(row, step, chunk);
        bits.insert({at.lane, at.shift});
      }
  CHECK(codes.size() == 512);
  CHECK(bits.size() == 256);
  for (auto const& [word, nibble] : codes) CHECK((word >= 0 && word < 64 && nibble >= 0 && nibble < 8));
  for (auto const& [lane, shift] : bits) CHECK((lane >= 0 && lane < 32 && shift >= 0 && shift < 32 && shift % 4 == 0));
}

TEST_CASE("sparse_tile: a lane's columns are those that it reads") {
  // Row 2 t + 8 r + i of B is element i of register r in lane t (PTX manual); read_activations gives it word 2 (2 s + r
  // / 2) .. of the lane's 64 bytes.
  for (int step = 0; step < 2; ++step)
    for (int t = 0; t < 4; ++t)
      for (int r = 0; r < 4; ++r) {
        int const instruction_column = 2 * t + 8 * r, chunk = instruction_column / 4;
        int const column = 4 * cuda::group_of_chunk(step, chunk) + instruction_column % 4;
        int const word = 4 * step + r, first = 32 * (t / 2);  // of the 8 words that take_half leaves
        CHECK(column == first + 4 * word + 2 * (t % 2));
      }
}

TEST_CASE("sparse_tile: what was packed is read back, for masks that keep two, one or none of four") {
  for (bool with_zeros : {false, true}) {
    index_t const rows = 32, columns = 192, group = 64;
    std::vector<std::uint32_t> words(static_cast<std::size_t>(rows * columns / 8));
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint32_t>(random_bits_at(3, 0, i));
    std::vector<float> scales(static_cast<std::size_t>(rows * columns / group), 0.5F);
    std::vector<std::uint8_t> zeros;
    for (std::size_t i = 0; i < scales.size(); ++i) zeros.push_back(static_cast<std::uint8_t>(i % 16));
    quantized_view<> w;
    w.rows = rows;
    w.columns = columns;
    w.block_columns = group;
    w.words = words.data();
    w.words_per_row = columns / 8;
    w.scales = tensor_view<float const, 2>(scales.data(), rows, columns / group);
    if (with_zeros) w.zeros = tensor_view<std::uint8_t const, 2>(zeros.data(), rows, columns / group);
    std::vector<std::uint64_t> mask(static_cast<std::size_t>(rows * columns / 64), 0);
    for (index_t r = 0; r < rows; ++r)
      for (index_t c = 0; c < columns; c += 4) {
        // All pairs of places, singles and nothing take turns.
        std::uint64_t const patterns[11] = {3, 5, 9, 6, 10, 12, 1, 2, 4, 8, 0};
        mask[static_cast<std::size_t>(r * (columns / 64) + c / 64)] |= patterns[(r * 7 + c / 4) % 11] << (c % 64);
      }
    cuda::sparse_rows<space::host> const from{w, tensor_view<std::uint64_t const, 2>(mask.data(), rows, columns / 64)};
    auto const tiles = cuda::pack_tiles(from);
    // 24 bytes for 64 columns of a row of... 16 rows: 4 bits for half the elements, 2 bits of place for each of those.
    CHECK(tiles.view.words_needed() * 16 == rows * columns / 2 / 2 + rows * columns / 2 / 4);
    for (index_t r = 0; r < rows; ++r)
      for (index_t c = 0; c < columns; ++c) {
        float const expected = from.keeps(r, c) ? w(r, c) : 0.0F;
        REQUIRE(cuda::element_at(tiles.view, r, c) == expected);
      }
    mask[0] |= 7;
    CHECK_THROWS_AS((void)cuda::pack_tiles(from), error);
  }
}

}  // namespace cuda_sparse_tile_test
