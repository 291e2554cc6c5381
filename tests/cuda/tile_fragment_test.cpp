// What the lanes of a warp read of tiles and make of it, against element_at: weights, scales, activations, and their
// product where whole numbers make it exact.
#include "cuda/weights.hpp"

#include <slimtrim/cuda/tile_fragment.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace cuda_tile_fragment_test {

using namespace slimtrim;
using cuda::tile_kind;
using cuda_tests::code_matrix;

namespace {

// One lane's part of one tile.
struct lane_record {
  std::uint32_t a[4][4];  // [step][register]
  float scale[2];
  std::uint32_t places;
};

// The ways to a tile.
enum class way { load, behind_cursor, moving_cursor };

// Grid: strip. One warp. records: [strips, blocks, 32].
template <class T, tile_kind Kind, bool WithZeros>
__global__ void read_tiles(cuda::tile_weight_view w, way how, lane_record* records) {
  int const lane = static_cast<int>(threadIdx.x);
  auto const blocks = static_cast<std::uint32_t>(w.blocks());
  cuda::strip_reader<Kind> const reader(w, blockIdx.x, lane);
  typename cuda::strip_reader<Kind>::cursor still(reader, 0), moving(reader, 0);
  for (std::uint32_t block = 0; block < blocks; ++block) {
    cuda::lane_tile<Kind> tile;
    if (how == way::load) {
      reader.template load<WithZeros>(block, tile);
    } else {
      if (how == way::behind_cursor) {
        still.load(block, tile);
      } else {  // two tiles at a place, then on to the next two
        moving.load(block % 2, tile);
        if (block % 2 == 1) moving.advance(2);
      }
      reader.template load_scales<WithZeros>(block, tile);
    }
    lane_record out{{}, {1, 1}, 0};
    std::uint32_t raised[2];
    cuda::raised_zeros<T>(tile.zeros, raised);
    for (int step = 0; step < cuda::tile_steps<Kind>; ++step)
      cuda::weight_registers<T, Kind>(tile, step, raised, out.a[step]);
    if constexpr (cuda::has_codes(Kind)) cuda::scales_of(w.scale_kind, tile.scales, out.scale);
    if constexpr (Kind == tile_kind::sparse4) out.places = tile.places;
    records[(blockIdx.x * blocks + block) * 32 + threadIdx.x] = out;
  }
}

struct element_place {
  index_t row, column;
};

// Of element i of register `reg` in step `step`, by the figure of the PTX manual and the order of columns in
// tile_weight.hpp.
element_place dense_place(int lane, int step, int reg, int i) {
  return {lane / 4 + 8 * (reg % 2), 16 * (lane % 4) + 4 * step + 2 * (reg / 2) + i};
}
// Of kept element i of a sparse tile; `tile` are the 32 lanes' records.
element_place sparse_place(lane_record const* tile, int lane, int step, int reg, int i) {
  int const chunk = lane % 4 + 4 * (reg / 2);
  std::uint32_t const word = tile[lane / 4 * 4 + 2 * step + chunk / 4].places;
  auto const place = static_cast<int>(word >> (16 * (reg % 2) + 4 * (chunk % 4) + 2 * i) & 3U);
  return {lane / 4 + 8 * (reg % 2), 4 * cuda::group_of_chunk(step, chunk) + place};
}

// Every element of the strips as the lanes have it, exact: a code less its zero point has 5 bits and a scale 11.
template <class T, tile_kind Kind, bool WithZeros = true>
void check_reading(cuda::host_tiles const& tiles) {
  cuda_tests::device_memory device;
  auto const w = cuda_tests::upload_tiles(device, tiles);
  auto expected = tiles.view;
  if (!WithZeros) expected.zeros = nullptr;
  for (way how : {way::load, way::behind_cursor, way::moving_cursor}) {
    auto const out = device.vector<lane_record>(w.strips() * w.blocks() * 32);
    cuda::launch(device.backend().on().stream(), {dim3(cuda::blocks_for(w.strips())), 32, 0},
                 read_tiles<T, Kind, WithZeros>, w, how, out.data);
    auto const records = device.download<lane_record>(out);
    std::vector<float> found(static_cast<std::size_t>(w.rows * w.columns), 0.0F);
    std::vector<int> met(found.size(), 0);
    for (index_t tile = 0; tile < w.strips() * w.blocks(); ++tile)
      for (int lane = 0; lane < 32; ++lane)
        for (int step = 0; step < cuda::tile_steps<Kind>; ++step)
          for (int reg = 0; reg < 4; ++reg)
            for (int i = 0; i < 2; ++i) {
              lane_record const* const warp = records.data() + tile * 32;
              auto const at =
                  Kind == tile_kind::sparse4 ? sparse_place(warp, lane, step, reg, i) : dense_place(lane, step, reg, i);
              auto const element = static_cast<float>(cuda::element_of_pair<T>(warp[lane].a[step][reg], i == 1));
              auto const to = static_cast<std::size_t>((tile / w.blocks() * 16 + at.row) * w.columns +
                                                       tile % w.blocks() * 64 + at.column);
              found[to] = element * warp[lane].scale[reg % 2];
              ++met[to];
            }
    CAPTURE(static_cast<int>(how));
    index_t together = 0;
    for (index_t r = 0; r < w.rows; ++r)
      for (index_t c = 0; c < w.columns; ++c) {
        auto const at = static_cast<std::size_t>(r * w.columns + c);
        REQUIRE(found[at] == cuda::element_at(expected, r, c));
        REQUIRE(met[at] <= 1);
        together += met[at];
      }
    CHECK(together == w.rows * w.columns / (Kind == tile_kind::sparse4 ? 2 : 1));
  }
}

// Two of every four columns; or, `thin`, one or none as well.
struct sparse_matrix : code_matrix {
  std::vector<std::uint64_t> mask;
  sparse_matrix(index_t rows, index_t columns, index_t group, bool with_zeros, bool thin)
      : code_matrix(rows, columns, group, with_zeros, 7) {
    std::uint64_t const patterns[11] = {3, 5, 9, 6, 10, 12, 1, 2, 4, 8, 0};
    mask.assign(static_cast<std::size_t>(rows * (columns / 64)), 0);
    for (std::size_t i = 0; i < mask.size(); ++i)
      for (std::uint64_t g = 0; g < 16; ++g) mask[i] |= patterns[random_bits_at(7, i, g) % (thin ? 11 : 6)] << (4 * g);
  }
  [[nodiscard]] cuda::host_tiles tiles() const {
    return cuda::pack_tiles(cuda::sparse_rows<space::host>{
        view, tensor_view<std::uint64_t const, 2>(mask.data(), view.rows, view.columns / 64)});
  }
};

template <class T>
tensor<T, 2> whole_numbers(index_t rows, index_t columns, std::uint64_t seed) {
  tensor<T, 2> x(rows, columns);
  for (index_t i = 0; i < rows * columns; ++i)
    x.view().data[i] = T(static_cast<float>(random_bits_at(seed, 4, static_cast<std::uint64_t>(i)) % 17) - 8.0F);
  return x;
}

}  // namespace

TEST_CASE("tile_fragment: 4-bit codes, groups of one block, of two and of a whole row, an odd number of blocks") {
  for (index_t group : {64, 128, 0})
    for (bool with_zeros : {false, true}) {
      code_matrix const w(32, 320, group, with_zeros, 7);
      auto const tiles = cuda::pack_tiles(w.view);
      check_reading<bfloat16, tile_kind::codes4>(tiles);
      check_reading<float16, tile_kind::codes4>(tiles);
    }
}

TEST_CASE("tile_fragment: 2:4 sparse codes, with groups of four that keep one column or none") {
  for (bool with_zeros : {false, true})
    for (bool thin : {false, true}) {
      auto const tiles = sparse_matrix(32, 192, 64, with_zeros, thin).tiles();
      check_reading<bfloat16, tile_kind::sparse4>(tiles);
      check_reading<float16, tile_kind::sparse4>(tiles);
    }
}

TEST_CASE("tile_fragment: elements of 16 bits") {
  check_reading<bfloat16, tile_kind::bfloat16>(
      cuda::pack_tiles<bfloat16>(cuda_tests::random_halves(32, 192, 3).view()));
  check_reading<float16, tile_kind::float16>(cuda::pack_tiles<float16>(whole_numbers<float16>(16, 64, 3).view()));
}

TEST_CASE("tile_fragment: zero points that are not asked for are 8") {
  code_matrix const w(16, 128, 64, true, 7);
  check_reading<bfloat16, tile_kind::codes4, false>(cuda::pack_tiles(w.view));
}

TEST_CASE("tile_fragment: scales of float16") {
  code_matrix w(16, 128, 64, false, 7);
  w.scales[0] = 1.0F + 0x1p-10F;  // not a bfloat16
  auto const tiles = cuda::pack_tiles(w.view);
  REQUIRE(tiles.view.scale_kind == cuda::tile_scale::float16);
  check_reading<bfloat16, tile_kind::codes4>(tiles);
}

namespace {

__global__ void widen_scales(cuda::tile_scale kind, float* out) {
  std::uint32_t const bits = blockIdx.x * blockDim.x + threadIdx.x;
  float low[2], high[2];
  cuda::scales_of(kind, bits | 0x12340000U, low);
  cuda::scales_of(kind, bits << 16 | 0x1234U, high);
  out[2 * bits] = low[0];
  out[2 * bits + 1] = high[1];
}

}  // namespace

TEST_CASE("tile_fragment: every scale, in both halves of a word") {
  cuda_tests::device_memory device;
  for (auto kind : {cuda::tile_scale::bfloat16, cuda::tile_scale::float16}) {
    auto const out = device.vector<float>(2 << 16);
    cuda::launch(device.backend().on().stream(), {dim3(256), 256, 0}, widen_scales, kind, out.data);
    auto const found = device.download<float>(out);
    int wrong = 0;
    for (std::uint32_t bits = 0; bits < 1U << 16; ++bits) {
      auto const half = static_cast<std::uint16_t>(bits);
      float const expected = kind == cuda::tile_scale::bfloat16 ? static_cast<float>(bfloat16::from_bits(half))
                                                                : static_cast<float>(float16::from_bits(half));
      for (std::size_t upper : {0U, 1U}) {
        float const value = found[2 * bits + upper];
        wrong += std::isnan(expected) ? !std::isnan(value)
                                      : value != expected || std::signbit(value) != std::signbit(expected);
      }
    }
    CHECK(wrong == 0);
  }
}

namespace {

// One warp. words: [32, 8].
template <tile_kind Kind>
__global__ void read_tokens(device_matrix<bfloat16 const> X, std::uint32_t* words) {
  int const lane = static_cast<int>(threadIdx.x);
  cuda::lane_activations x;
  cuda::read_activations<Kind>(X.data + lane / 4 * X.stride(0) + cuda::first_column<Kind>(lane), lane, x);
  for (int i = 0; i < 8; ++i) words[lane * 8 + i] = x.word[i];
}

// The column of element i of word `word` of a lane's activations.
template <tile_kind Kind>
int column_of(int lane, int word, int i) {
  int const t = lane % 4;
  if (Kind != tile_kind::sparse4) return 16 * t + 2 * word + i;
  // Row 2 t + 8 reg + i of B in step word / 4, register reg = word % 4.
  int const row = 2 * t + 8 * (word % 4) + i;
  return 4 * cuda::group_of_chunk(word / 4, row / 4) + row % 4;
}

template <tile_kind Kind>
void check_activations() {
  cuda_tests::device_memory device;
  tensor<bfloat16, 2> X(8, 64);
  for (index_t i = 0; i < 8 * 64; ++i) X.view().data[i] = bfloat16::from_bits(static_cast<std::uint16_t>(i));
  auto const out = device.vector<std::uint32_t>(32 * 8);
  cuda::launch(device.backend().on().stream(), {dim3(1), 32, 0}, read_tokens<Kind>,
               as_const(device.upload_matrix<bfloat16>(X)), out.data);
  auto const words = device.download<std::uint32_t>(out);
  for (int lane = 0; lane < 32; ++lane)
    for (int word = 0; word < 8; ++word)
      for (int i = 0; i < 2; ++i)
        CHECK(cuda::element_of_pair<bfloat16>(words[static_cast<std::size_t>(lane * 8 + word)], i == 1).bits ==
              X(lane / 4, column_of<Kind>(lane, word, i)).bits);
}

}  // namespace

TEST_CASE("tile_fragment: activations of a lane, dense and sparse") {
  check_activations<tile_kind::codes4>();
  check_activations<tile_kind::bfloat16>();
  check_activations<tile_kind::sparse4>();
}

namespace {

// Grid: strip. One warp; all tiles of the strip, scales apart. Y: [8, rows].
template <class T, tile_kind Kind>
__global__ void multiply_all(cuda::tile_weight_view w, device_matrix<T const> X, float* Y) {
  int const lane = static_cast<int>(threadIdx.x);
  cuda::strip_reader<Kind> const reader(w, blockIdx.x, lane);
  float sums[4] = {};
  for (std::uint32_t block = 0; block < static_cast<std::uint32_t>(w.blocks()); ++block) {
    cuda::lane_tile<Kind> tile;
    reader.load(block, tile);
    cuda::lane_activations x;
    cuda::read_activations<Kind>(X.data + lane / 4 * X.stride(0) + block * 64 + cuda::first_column<Kind>(lane), lane,
                                 x);
    std::uint32_t raised[2], a[4];
    cuda::raised_zeros<T>(tile.zeros, raised);
    for (int step = 0; step < cuda::tile_steps<Kind>; ++step) {
      cuda::weight_registers<T, Kind>(tile, step, raised, a);
      cuda::multiply_step<T, Kind>(sums, tile, step, a, x.word + cuda::step_words<Kind> * step);
    }
  }
  for (int e = 0; e < 4; ++e) Y[(lane % 4 * 2 + e % 2) * w.rows + blockIdx.x * 16 + lane / 4 + 8 * (e / 2)] = sums[e];
}

// Whole numbers below 2^24 throughout, so sums are exact in any order.
template <class T, tile_kind Kind>
void check_product(cuda::host_tiles const& tiles) {
  cuda_tests::device_memory device;
  auto const w = cuda_tests::upload_tiles(device, tiles);
  auto const X = whole_numbers<T>(8, w.columns, 5);
  auto const Y = device.matrix<float>(8, w.rows);
  cuda::launch(device.backend().on().stream(), {dim3(cuda::blocks_for(w.strips())), 32, 0}, multiply_all<T, Kind>, w,
               as_const(device.upload_matrix<T>(X)), Y.data);
  auto const found = device.download<float>(Y);
  std::vector<double> expected, sizes;
  cuda_tests::plain_product<T>(tiles.view, as_const(X.view()), expected, sizes);
  for (std::size_t i = 0; i < expected.size(); ++i) REQUIRE(static_cast<double>(found[i]) == expected[i]);
}

}  // namespace

TEST_CASE("tile_fragment: products of whole numbers are exact, for every kind of weight") {
  for (bool with_zeros : {false, true}) {
    code_matrix w(32, 192, 0, with_zeros, 7);
    sparse_matrix thin(32, 192, 0, with_zeros, true);
    w.scales.assign(w.scales.size(), 1.0F);
    thin.scales.assign(thin.scales.size(), 1.0F);
    auto const codes = cuda::pack_tiles(w.view), sparse = thin.tiles();
    check_product<bfloat16, tile_kind::codes4>(codes);
    check_product<float16, tile_kind::codes4>(codes);
    check_product<bfloat16, tile_kind::sparse4>(sparse);
    check_product<float16, tile_kind::sparse4>(sparse);
  }
  check_product<bfloat16, tile_kind::bfloat16>(cuda::pack_tiles<bfloat16>(whole_numbers<bfloat16>(32, 192, 1).view()));
  check_product<float16, tile_kind::float16>(cuda::pack_tiles<float16>(whole_numbers<float16>(16, 64, 1).view()));
}

TEST_CASE("tile_fragment: activations that can be read 16 bytes at a time") {
  cuda_tests::device_memory device;
  auto const X = as_const(device.matrix<bfloat16>(3, 72)), odd = as_const(device.matrix<bfloat16>(3, 68));
  CHECK(cuda::takes_activations<bfloat16>(X));
  CHECK(cuda::takes_activations<bfloat16>(columns(X, 8, 64)));
  CHECK_FALSE(cuda::takes_activations<bfloat16>(columns(X, 4, 64)));
  CHECK_FALSE(cuda::takes_activations<bfloat16>(columns(odd, 0, 64)));
  CHECK(cuda::takes_activations<bfloat16>(rows(odd, 0, 1)));  // there is no second row
  index_t const sizes[2] = {3, 32}, steps[2] = {72, 2};
  CHECK_FALSE(cuda::takes_activations<bfloat16>(device_matrix<bfloat16 const>(X.data, sizes, steps)));
}

TEST_CASE("tile_fragment: operands that do not fit are refused, and named") {
  cuda_tests::device_memory device;
  code_matrix const matrix(32, 128, 64, false, 1);
  auto const w = cuda_tests::upload_tiles(device, cuda::pack_tiles(matrix.view));
  auto const X = as_const(device.matrix<bfloat16>(3, 128));
  auto const Y = device.matrix<float>(3, 32);
  auto const says = [](cuda::tile_weight_view const& of, device_matrix<bfloat16 const> x, device_matrix<float> y) {
    try {
      cuda::check_product_operands<bfloat16, tile_kind::codes4, float>(of, x, y, "here");
    } catch (error const& e) {
      return std::string(e.what());
    }
    return std::string("nothing");
  };
  CHECK(says(w, X, Y) == "nothing");
  CHECK(says(w, columns(X, 0, 64), Y) == "here: columns of the activations: expected 128, found 64");
  CHECK(says(w, rows(X, 0, 2), Y) == "here: rows of the result: expected 2, found 3");
  CHECK(says(w, X, columns(Y, 0, 16)) == "here: columns of the result: expected 32, found 16");
  auto const narrow = as_const(device.matrix<bfloat16>(3, 129));
  CHECK(says(w, columns(narrow, 0, 128), Y) == "here: X: expected rows aligned to 16 bytes");
  auto other = w;
  other.kind = tile_kind::sparse4;
  CHECK(says(other, X, Y) == "here: kind of the weight: expected that of the kernel");
  other = w;
  other.words = reinterpret_cast<cuda::words4 const*>(reinterpret_cast<char const*>(w.words) + 8);
  CHECK(says(other, X, Y) == "here: weight: expected words aligned to 16 bytes");
  other = w;
  other.rows = 24;
  CHECK(says(other, X, Y) == "tile_weight: rows: expected a multiple of 16");
}

}  // namespace cuda_tile_fragment_test
