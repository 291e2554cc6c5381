// Host weights of every kind against what comes to lie in device memory, element by element, and the decision what
// stays packed.
#include "cuda/downloaded_tiles.hpp"
#include "cuda/weights.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/upload.cuh>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace cuda_upload_test {

using namespace slimtrim;
using cuda_tests::code_matrix;
using cuda_tests::downloaded_tiles;

namespace {

// Whether rows from `above` on are `w` as T has it, and zero behind it down to `rows` and to the tiles' columns. Behind
// the columns of codes, where activations are zero, anything finite may stand.
template <class T>
bool holds(downloaded_tiles const& tiles, weight_view const& w, index_t above, index_t rows) {
  auto const plain = expand(w);
  bool const packed = cuda::has_codes(tiles.view.kind);
  for (index_t r = 0; r < rows; ++r)
    for (index_t c = 0; c < tiles.view.columns; ++c) {
      float const found = tiles(above + r, c);
      bool const own = r < plain.extent(0) && c < plain.extent(1);
      float const expected = own ? (packed ? plain(r, c) : static_cast<float>(T(plain(r, c)))) : 0.0F;
      bool const free = packed && !own && r < plain.extent(0);
      if (free ? !std::isfinite(found) : found != expected) {
        CAPTURE(r);
        CAPTURE(c);
        CHECK(found == expected);
        return false;
      }
    }
  return true;
}

tensor<float, 2> random_floats(index_t rows, index_t columns, std::uint64_t stream) {
  tensor<float, 2> x(rows, columns);
  for (index_t i = 0; i < rows * columns; ++i)
    x.view().data[i] = static_cast<float>(normal_at(11, stream, static_cast<std::uint64_t>(i)));
  return x;
}

// One matrix in each kind that a host weight has.
struct kinds {
  index_t rows, columns;
  tensor<float, 2> floats;
  tensor<bfloat16, 2> brains;
  tensor<float16, 2> halves;
  std::vector<std::uint64_t> mask;
  code_matrix eight;
  kinds(index_t n, index_t m)
      : rows(n), columns(m), floats(random_floats(n, m, 1)), brains(n, m), halves(n, m), eight(n, m, 32, true, 3) {
    for (index_t i = 0; i < n * m; ++i) {
      brains.view().data[i] = bfloat16(floats.view().data[i]);
      halves.view().data[i] = float16(floats.view().data[i]);
    }
    for (index_t i = 0; i < n * ceil_div(m, 64); ++i)
      mask.push_back(random_bits_at(11, 2, static_cast<std::uint64_t>(i)));
  }
  [[nodiscard]] std::vector<weight_view> all() const {
    masked_view<bfloat16> masked;
    masked.values = as_const(brains.view());
    masked.mask.words = mask.data();
    masked.mask.rows = rows;
    masked.mask.columns = columns;
    masked.mask.words_per_row = ceil_div(columns, 64);
    return {as_const(floats.view()), as_const(brains.view()), as_const(halves.view()), eight.view, masked,
            // The same elements read the other way round: rows that are not contiguous.
            transposed(matrix_view<bfloat16 const>(brains.view().data, columns, rows))};
  }
};

template <class T>
void check_tiles(weight_view const& w, index_t rows, index_t columns, bool expanded) {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  auto const made = cuda::upload_tiles<T>(on, w, rows, expanded, columns);
  downloaded_tiles const tiles(on, made);
  CHECK(tiles.view.rows == cuda::padded_extent(rows));
  CHECK(tiles.view.columns == cuda::padded_extent(std::max(columns, weight_columns(w))));
  CHECK(cuda::has_codes(tiles.view.kind) == (!expanded && cuda::stays_packed(w)));
  CHECK(holds<T>(tiles, w, 0, tiles.view.rows));
}

}  // namespace

TEST_CASE("cuda upload: what stays packed") {
  auto const stays = [](index_t columns, index_t group) {
    return cuda::stays_packed(code_matrix(2, columns, group, true, 1).view);
  };
  // Whole rows, and 64 times a power of two, whether or not it divides the columns.
  for (index_t group : {0, 64, 128, 256, 320}) CHECK(stays(320, group));
  CHECK(stays(70, 64));
  CHECK(stays(50, 0));
  for (index_t group : {16, 32, 96, 192}) CHECK_FALSE(stays(320, group));
  code_matrix w(2, 128, 64, false, 1);
  auto view = w.view;
  std::vector<std::int32_t> const order(128, 0);
  view.column_group = order.data();
  CHECK_FALSE(cuda::stays_packed(view));
  view = w.view;
  view.bits = 8;
  CHECK_FALSE(cuda::stays_packed(view));
  tensor<bfloat16, 2> const dense(2, 64);
  CHECK_FALSE(cuda::stays_packed(as_const(dense.view())));
  // Scales that only float16 holds, that only bfloat16 holds, one of each, and that neither holds.
  auto const with = [&](float a, float b) {
    w.scales[0] = a;
    w.scales[3] = b;
    return cuda::detail::code_shape_of(w.view);
  };
  w.scales.assign(4, 0.5F);
  float const fine = 1 + 0x1p-10F, large = 0x1p100F;
  CHECK(with(fine, fine)->scale == cuda::tile_scale::float16);
  CHECK(with(large, large)->scale == cuda::tile_scale::bfloat16);
  CHECK(with(1, 2)->scale == cuda::tile_scale::bfloat16);  // both hold them
  CHECK_FALSE(with(fine, large));
  CHECK_FALSE(with(1 + 0x1p-20F, 1));
  w.scales.assign(4, 0.5F);
  CHECK(cuda::stay_packed_together(w.view, w.view));
  CHECK_FALSE(cuda::stay_packed_together(w.view, code_matrix(2, 128, 128, false, 1).view));
  CHECK_FALSE(cuda::stay_packed_together(w.view, as_const(dense.view())));
}

TEST_CASE("cuda upload: tiles hold every kind of weight, zeros around it") {
  for (index_t rows : {1, 17, 64})
    for (index_t columns : {1, 64, 70}) {
      kinds const all(rows, columns);
      for (weight_view const& w : all.all()) {
        CAPTURE(w.index());
        check_tiles<bfloat16>(w, weight_rows(w), 0, false);
        check_tiles<float16>(w, weight_rows(w), 0, false);
      }
    }
  kinds const small(17, 70);
  check_tiles<bfloat16>(small.all()[0], 130, 200, false);  // more rows and columns than it has
}

TEST_CASE("cuda upload: codes stay codes, with and without zero points, unless they are to be expanded") {
  for (bool zeros : {false, true})
    for (index_t group : {0, 64, 128}) {
      code_matrix const w(19, 200, group, zeros, 5);
      check_tiles<bfloat16>(w.view, 19, 0, false);
      check_tiles<bfloat16>(w.view, 19, 0, true);
      check_tiles<float16>(w.view, 100, 300, false);
    }
}

TEST_CASE("cuda upload: gate and up in turns, as codes where both can be") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  index_t const rows = 21, columns = 130, width = 70;
  code_matrix const gate(rows, columns, 64, true, 1), up(rows, columns, 64, false, 2),
      other(rows, columns, 128, false, 3);
  auto const check = [&](weight_view const& a, weight_view const& b, bool expanded, bool packed) {
    downloaded_tiles const tiles(on, cuda::upload_gate_up<bfloat16>(on, a, b, width, expanded));
    REQUIRE(tiles.view.rows == 256);
    REQUIRE(tiles.view.columns == 192);
    REQUIRE(cuda::has_codes(tiles.view.kind) == packed);
    auto const x = expand(a), y = expand(b);
    for (index_t r = 0; r < 128; ++r)
      for (index_t c = 0; c < columns; ++c)
        for (bool is_up : {false, true}) {
          float const value = r < rows ? (is_up ? y : x)(r, c) : 0.0F;
          REQUIRE(tiles(cuda::fused_row(r, is_up), c) == (packed ? value : static_cast<float>(bfloat16(value))));
        }
  };
  check(gate.view, up.view, false, true);
  check(up.view, gate.view, false, true);  // zero points in the second only
  check(gate.view, up.view, true, false);
  check(gate.view, other.view, false, false);
}

TEST_CASE("cuda upload: a stack is one matrix where its parts are alike, and one for each where they are not") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  index_t const columns = 130;
  code_matrix const a(17, columns, 64, false, 1), b(70, columns, 64, true, 2), other(3, columns, 128, false, 3);
  auto const dense = random_floats(65, columns, 4);
  auto const brains = cuda_tests::random_halves(1, columns, 5);
  auto const check = [&](std::vector<weight_view> const& parts, std::size_t stacks) {
    auto const made = cuda::upload_stack<bfloat16>(on, parts);
    REQUIRE(made.size() == stacks);
    index_t above = 0;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      downloaded_tiles const tiles(on, made[stacks == 1 ? 0 : i]);
      index_t const rows = cuda::padded_extent(weight_rows(parts[i]));
      CHECK(holds<bfloat16>(tiles, parts[i], above, rows));
      CHECK(cuda::has_codes(tiles.view.kind) == cuda::stays_packed(parts[i]));
      above = stacks == 1 ? above + rows : 0;
      if (stacks > 1 || i + 1 == parts.size()) CHECK(tiles.view.rows == (stacks == 1 ? above : rows));
    }
  };
  check({a.view, b.view, a.view}, 1);  // zero points in the middle only
  check({as_const(dense.view()), as_const(brains.view())}, 1);
  check({a.view, as_const(dense.view()), b.view}, 3);
  check({a.view, other.view}, 2);
  check({a.view}, 1);
  check({}, 0);
}

TEST_CASE("cuda upload: zeros, plain rows and floats") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  for (auto kind : {cuda::tile_kind::codes4, cuda::tile_kind::bfloat16}) {
    downloaded_tiles const tiles(on, cuda::zero_tiles<bfloat16>(on, 64, 128, kind));
    CHECK(tiles.view.kind == kind);
    for (index_t r = 0; r < 64; ++r)
      for (index_t c = 0; c < 128; ++c) REQUIRE(tiles(r, c) == 0.0F);
  }
  for (index_t rows : {0, 1, 17})
    for (index_t columns : {70, 128}) {
      kinds const all(rows, 70);
      for (weight_view const& w : all.all()) {
        auto const made = cuda::upload_rows<float16>(on, w, columns);
        auto const found = device.download<float16>(device_vector<float16>(made.data(), made.size()));
        auto const plain = expand(w);
        REQUIRE(made.size() == rows * columns);
        for (index_t r = 0; r < rows; ++r)
          for (index_t c = 0; c < columns; ++c)
            REQUIRE(found[static_cast<std::size_t>(r * columns + c)].bits ==
                    (c < 70 ? float16(plain(r, c)) : float16(0.0F)).bits);
      }
    }
  // So wide that it is rounded a row at a time.
  auto const wide = random_floats(2, (index_t{1} << 21) + 8, 6);
  auto const made = cuda::upload_rows<bfloat16>(on, as_const(wide.view()), wide.extent(1));
  auto const found = device.download<bfloat16>(device_vector<bfloat16>(made.data(), made.size()));
  bool equal = true;
  for (index_t i = 0; i < made.size(); ++i)
    equal = equal && found[static_cast<std::size_t>(i)].bits == bfloat16(wide.view().data[i]).bits;
  CHECK(equal);
  std::vector<float> const some{1, -2, 0.1F};
  auto const floats = cuda::upload_floats(on, some);
  CHECK(device.download<float>(floats.view()) == some);
  CHECK(cuda::upload_floats(on, {}).size() == 0);
}

}  // namespace cuda_upload_test
