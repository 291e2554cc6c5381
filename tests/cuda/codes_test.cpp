// Codes on their way to a quantised matrix: encoded as near as the grid allows, judged, replaced row by row, packed bit
// by bit. Columns stand in an order of their own throughout.
#include "cuda/support.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/codes.cuh>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace cuda_codes_test {

using namespace slimtrim;

namespace {

// Column j stands at place 5 j + 3, modulo a number of columns that 5 does not divide.
std::vector<std::int32_t> places(index_t columns) {
  std::vector<std::int32_t> place;
  for (index_t j = 0; j < columns; ++j) place.push_back(static_cast<std::int32_t>((5 * j + 3) % columns));
  return place;
}

struct stack {
  index_t rows, columns, group, groups;
  std::vector<std::uint8_t> codes, zeros;  // [rows, columns] in sweep order; [groups, rows]
  std::vector<float> scales;               // [groups, rows]
  std::vector<std::int32_t> place;
  stack(index_t n, index_t c, index_t size, int bits)
      : rows(n), columns(c), group(size), groups(ceil_div(c, size)), place(places(c)) {
    for (index_t i = 0; i < n * c; ++i)
      codes.push_back(static_cast<std::uint8_t>(random_bits_at(7, 1, static_cast<std::uint64_t>(i)) % (1U << bits)));
    for (index_t i = 0; i < n * groups; ++i) {
      zeros.push_back(static_cast<std::uint8_t>(random_bits_at(7, 2, static_cast<std::uint64_t>(i)) % (1U << bits)));
      scales.push_back(0.25F + static_cast<float>(uniform_at(7, 3, static_cast<std::uint64_t>(i))));
    }
  }
  [[nodiscard]] std::uint8_t code(index_t r, index_t j) const {
    return codes[static_cast<std::size_t>(r * columns + place[static_cast<std::size_t>(j)])];
  }
  [[nodiscard]] std::size_t of_group(index_t r, index_t g) const { return static_cast<std::size_t>(g * rows + r); }
};

// A view of what lies group by group, as rows by groups.
template <class T>
device_matrix<T> by_row(T* data, stack const& of) {
  index_t const sizes[2] = {of.rows, of.groups}, steps[2] = {1, of.rows};
  return device_matrix<T>(data, sizes, steps);
}

void check_packing(index_t rows, index_t columns, int bits, bool symmetric) {
  CAPTURE(columns);
  CAPTURE(bits);
  cuda_tests::device_memory device;
  stack const s(rows, columns, 16, bits);
  quantized_matrix out(rows, columns, {bits, symmetric}, {group_kind::group, 16}, scale_type::float32);
  device_matrix<std::uint8_t const> zeros;
  if (!symmetric) zeros = by_row<std::uint8_t const>(device.keep<std::uint8_t>(s.zeros.data(), rows * s.groups), s);
  cuda::detail::download_codes(device.backend().on(), device.keep<std::uint8_t>(s.codes.data(), rows * columns),
                               device.keep<std::int32_t>(s.place.data(), columns),
                               by_row<float const>(device.keep<float>(s.scales.data(), rows * s.groups), s), zeros,
                               out);
  for (index_t r = 0; r < rows; ++r) {
    std::vector<bool> stream;
    for (index_t j = 0; j < columns; ++j)
      for (int b = 0; b < bits; ++b) stream.push_back((s.code(r, j) >> b & 1) != 0);
    stream.resize(static_cast<std::size_t>(32 * packed_words(columns, bits)), false);
    for (std::size_t at = 0; at < stream.size(); ++at)
      REQUIRE((out.words(r, static_cast<index_t>(at / 32)) >> (at % 32) & 1U) == (stream[at] ? 1U : 0U));
    for (index_t g = 0; g < s.groups; ++g) {
      REQUIRE(out.scales(r, g) == s.scales[s.of_group(r, g)]);
      if (!symmetric) REQUIRE(out.zeros(r, g) == s.zeros[s.of_group(r, g)]);
    }
  }
}

// Codes and errors of rows first .. of a stack that is taller than W.
void check_rounding(bool symmetric, bool divided) {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  index_t const rows = 5, columns = 37, first = 2, all = 9;
  uniform_grid const grid{3, symmetric};
  stack const s(all, columns, 10, 3);
  tensor<float, 2> W(rows, columns);
  for (index_t i = 0; i < rows * columns; ++i)
    W.view().data[i] = static_cast<float>(2 * normal_at(7, 4, static_cast<std::uint64_t>(i)));
  std::vector<float> divisors;
  for (index_t j = 0; j < columns; ++j) divisors.push_back(0.5F + static_cast<float>(j % 4));
  auto const w = as_const(device.upload_matrix<float>(W, backend_tests::layout::padded_rows));
  cuda::detail::group_scales const by{device.keep<float>(s.scales.data(), all * s.groups),
                                      symmetric ? nullptr : device.keep<std::uint8_t>(s.zeros.data(), all * s.groups),
                                      all};
  auto const codes = device.matrix<std::uint8_t>(all, columns);
  auto const error = device.matrix<float>(rows, columns);
  std::int32_t const* const place = device.keep<std::int32_t>(s.place.data(), columns);
  cuda::for_each_element(on, rows, columns, false,
                         cuda::detail::encode_element<float>{w, grid, s.group, first, by, codes, place});
  cuda::for_each_element(
      on, rows, columns, false,
      cuda::detail::error_element<float>{w, grid, s.group, first, by, as_const(codes), place, error,
                                         divided ? device.keep<float>(divisors.data(), columns) : nullptr});
  auto const found = device.download<std::uint8_t>(codes);
  auto const errors = device.download<float>(error);
  for (index_t r = 0; r < all; ++r)
    for (index_t j = 0; j < columns; ++j) {
      std::uint8_t const code = found[static_cast<std::size_t>(r * columns + s.place[static_cast<std::size_t>(j)])];
      if (r < first || r >= first + rows) {
        REQUIRE(code == 0xff);
        continue;
      }
      std::size_t const block = s.of_group(r, j / s.group);
      double const scale = static_cast<double>(s.scales[block]), value = static_cast<double>(W(r - first, j));
      int const zero = symmetric ? 4 : s.zeros[block];
      double nearest = 1e300;
      for (int q = 0; q < 8; ++q) nearest = std::min(nearest, std::abs((q - zero) * scale - value));
      double const off = (code - zero) * scale - value;
      REQUIRE(code < 8);
      // The quotient value / scale is rounded once, and near a tie the other neighbour may be taken.
      REQUIRE(std::abs(off) <= nearest + 0x1p-22 * std::abs(value));
      // Decoding rounds once, and so do the subtraction and the division.
      double const expected = divided ? off / static_cast<double>(divisors[static_cast<std::size_t>(j)]) : off;
      REQUIRE(std::abs(static_cast<double>(errors[static_cast<std::size_t>((r - first) * columns + j)]) - expected) <=
              0x1p-22 * (std::abs(expected) + 2 * (std::abs(off) + std::abs(value))));
    }
}

}  // namespace

TEST_CASE("cuda codes: packed words hold every code's bits in the columns' own order, and nothing else") {
  for (int bits = 1; bits <= 8; ++bits)
    for (index_t columns : {1, 17, 32, 33, 64, 171}) check_packing(3, columns, bits, bits % 2 == 0);
  check_packing(0, 33, 4, false);
  check_packing(1, 33, 4, false);
}

TEST_CASE("cuda codes: no code of the grid is nearer, and errors are those of the codes") {
  for (bool symmetric : {true, false})
    for (bool divided : {true, false}) check_rounding(symmetric, divided);
}

TEST_CASE("cuda codes: rounded rows take the place of swept ones where they are better, and only there") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  float const nan = std::numeric_limits<float>::quiet_NaN();
  // Better, as good, worse, and what cannot be compared.
  std::vector<float> const rounded{1, 2, 3, nan, 1, 0}, swept{2, 2, 2, 1, nan, 1};
  std::vector<bool> const takes{true, false, false, false, false, true};
  index_t const rows = 6, columns = 7;
  stack const a(rows, columns, 3, 4), b = [&] {
    stack other = a;
    for (auto& code : other.codes) code = static_cast<std::uint8_t>(code + 100);
    for (auto& zero : other.zeros) zero = static_cast<std::uint8_t>(zero + 100);
    for (auto& scale : other.scales) scale += 100;
    return other;
  }();
  auto const from_codes = device.keep<std::uint8_t>(a.codes.data(), rows * columns),
             to_codes = device.keep<std::uint8_t>(b.codes.data(), rows * columns);
  float const* const rounded_error = device.keep<float>(rounded.data(), rows);
  float const* const swept_error = device.keep<float>(swept.data(), rows);
  auto const scales = [&](stack const& s, bool zeros) {
    return cuda::detail::group_scales{device.keep<float>(s.scales.data(), rows * s.groups),
                                      zeros ? device.keep<std::uint8_t>(s.zeros.data(), rows * s.groups) : nullptr,
                                      rows};
  };
  cuda::for_each_element(on, rows, columns, false,
                         cuda::detail::keep_rounded<std::uint8_t>{rounded_error, swept_error, from_codes, to_codes, columns});
  auto const codes = device.download<std::uint8_t>(device_vector<std::uint8_t>(to_codes, rows * columns));
  for (index_t r = 0; r < rows; ++r)
    for (index_t j = 0; j < columns; ++j) {
      auto const at = static_cast<std::size_t>(r * columns + j);
      CHECK(codes[at] == (takes[static_cast<std::size_t>(r)] ? a.codes[at] : b.codes[at]));
    }
  for (bool zeros : {true, false}) {
    auto const from = scales(a, zeros), to = scales(b, zeros);
    cuda::for_each_element(on, a.groups, rows, false,
                           cuda::detail::keep_rounded_scales{rounded_error, swept_error, from, to});
    auto const found = device.download<float>(device_vector<float>(to.scales, rows * a.groups));
    for (index_t r = 0; r < rows; ++r)
      for (index_t g = 0; g < a.groups; ++g) {
        std::size_t const at = a.of_group(r, g);
        CHECK(found[at] == (takes[static_cast<std::size_t>(r)] ? a.scales[at] : b.scales[at]));
        if (zeros)
          CHECK(device.download<std::uint8_t>(device_vector<std::uint8_t>(to.zeros, rows * a.groups))[at] ==
                (takes[static_cast<std::size_t>(r)] ? a.zeros[at] : b.zeros[at]));
      }
  }
}

}  // namespace cuda_codes_test
