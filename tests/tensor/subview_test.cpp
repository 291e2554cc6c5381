#include <slimtrim/tensor/subview.hpp>
#include <doctest/doctest.h>

#include <numeric>
#include <type_traits>
#include <vector>

namespace tensor_subview_test {

using namespace slimtrim;

namespace {

struct fixture {
  std::vector<int> data = std::vector<int>(60);
  tensor_view<int, 3> cube{};
  matrix_view<int> x{};  // [5, 12]
  fixture() {
    std::iota(data.begin(), data.end(), 0);
    cube = tensor_view<int, 3>(data.data(), 3, 4, 5);
    x = matrix_view<int>(data.data(), 5, 12);
  }
};

}  // namespace

TEST_CASE("row, column, rows and columns address the same elements as the matrix") {
  fixture f;
  for (index_t i = 0; i < 5; ++i)
    for (index_t j = 0; j < 12; ++j) {
      CHECK(&row(f.x, i)(j) == &f.x(i, j));
      CHECK(&column(f.x, j)(i) == &f.x(i, j));
    }
  CHECK(row(f.x, 0).extent(0) == 12);
  CHECK(column(f.x, 0).extent(0) == 5);
  auto const block = columns(rows(f.x, 1, 3), 4, 2);
  CHECK(block.extent(0) == 3);
  CHECK(block.extent(1) == 2);
  CHECK(&block(2, 1) == &f.x(3, 5));
}

TEST_CASE("transposing twice is the identity") {
  fixture f;
  auto const t = transposed(f.x);
  CHECK(t.extent(0) == 12);
  CHECK(&t(7, 2) == &f.x(2, 7));
  auto const back = transposed(t);
  CHECK(back.data == f.x.data);
  CHECK(back.stride(0) == f.x.stride(0));
  CHECK(back.stride(1) == f.x.stride(1));
}

TEST_CASE("the diagonal of a block, of its transpose and of a wide matrix") {
  fixture f;
  CHECK(diagonal(f.x).extent(0) == 5);
  for (index_t i = 0; i < 5; ++i) {
    CHECK(&diagonal(f.x)(i) == &f.x(i, i));
    CHECK(&diagonal(transposed(f.x))(i) == &f.x(i, i));
  }
}

TEST_CASE("subtensor drops the first dimension, slice keeps all") {
  fixture f;
  auto const plane = subtensor(f.cube, 2);
  static_assert(std::is_same_v<decltype(plane), matrix_view<int> const>);
  CHECK(&plane(3, 4) == &f.cube(2, 3, 4));
  auto const middle = slice(f.cube, 1, 1, 2);
  CHECK(middle.extent(1) == 2);
  CHECK(&middle(2, 1, 4) == &f.cube(2, 2, 4));
}

TEST_CASE("empty parts are allowed at both ends") {
  fixture f;
  CHECK(rows(f.x, 5, 0).empty());
  CHECK(columns(f.x, 0, 0).empty());
}

TEST_CASE("parts of device views stay device views and touch nothing") {
  matrix_view<float, space::device> const x(nullptr, 4, 6);
  static_assert(decltype(row(x, 0))::memory == space::device);
  static_assert(decltype(transposed(x))::memory == space::device);
  static_assert(std::is_same_v<decltype(as_const(x)), matrix_view<float const, space::device>>);
  CHECK(transposed(x).extent(0) == 6);
}

}  // namespace tensor_subview_test
