#include <slimtrim/tensor/tensor_view.hpp>
#include <doctest/doctest.h>

#include <type_traits>

namespace tensor_tensor_view_test {

using namespace slimtrim;

static_assert(std::is_trivially_copyable_v<tensor_view<float, 3>>);
static_assert(std::is_same_v<tensor_view<float const, 2>::value_type, float>);
static_assert(tensor_view<float, 2, space::device>::memory == space::device && tensor_view<float, 4>::rank == 4);
static_assert(std::is_convertible_v<matrix_view<float>, matrix_view<float const>>);
static_assert(!std::is_convertible_v<matrix_view<float const>, matrix_view<float>>);
static_assert(!std::is_convertible_v<matrix_view<float>, matrix_view<double>>);
static_assert(!std::is_convertible_v<matrix_view<float>, vector_view<float>>);
static_assert(!std::is_convertible_v<matrix_view<float, space::device>, matrix_view<float const, space::host>>);
static_assert(!std::is_constructible_v<matrix_view<float>, float*, int>);
static_assert(is_tensor_view<matrix_view<float>> && !is_tensor_view<float*>);

TEST_CASE("a view made from extents is in C order") {
  float data[24] = {};
  tensor_view<float, 3> x(data, 2, 3, 4);
  CHECK(x.stride(0) == 12);
  CHECK(x.stride(1) == 4);
  CHECK(x.stride(2) == 1);
  CHECK(x.size() == 24);
  CHECK(x.contiguous());
  int next = 0;
  for (index_t i = 0; i < 2; ++i)
    for (index_t j = 0; j < 3; ++j)
      for (index_t k = 0; k < 4; ++k) CHECK(&x(i, j, k) == data + next++);
}

TEST_CASE("explicit strides may skip, repeat and run backwards") {
  int data[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  index_t const sizes[2] = {2, 3};
  index_t const steps[2] = {0, -2};
  tensor_view<int const, 2> x(data + 9, sizes, steps);
  CHECK(x(0, 0) == 9);
  CHECK(x(1, 1) == 7);
  CHECK(x(0, 2) == 5);
  CHECK_FALSE(x.contiguous());
}

TEST_CASE("a single row or column is contiguous whatever the unused stride says") {
  float data[8] = {};
  index_t const row_sizes[2] = {1, 4}, row_steps[2] = {99, 1};
  CHECK(tensor_view<float, 2>(data, row_sizes, row_steps).contiguous());
  index_t const column_sizes[2] = {4, 1}, column_steps[2] = {1, 99};
  CHECK(tensor_view<float, 2>(data, column_sizes, column_steps).contiguous());
  index_t const wide_steps[2] = {2, 99};
  CHECK_FALSE(tensor_view<float, 2>(data, column_sizes, wide_steps).contiguous());
}

TEST_CASE("default and zero-extent views are empty") {
  CHECK(tensor_view<float, 2>{}.empty());
  CHECK(tensor_view<float, 2>{}.data == nullptr);
  float one = 0;
  CHECK(tensor_view<float, 2>(&one, 3, 0).empty());
  CHECK(tensor_view<float, 2>(&one, 0, 5).size() == 0);
}

TEST_CASE("a reading view sees what the writing view wrote") {
  float data[4] = {};
  matrix_view<float> writing(data, 2, 2);
  matrix_view<float const> const reading = writing;
  writing(1, 0) = 5;
  CHECK(reading(1, 0) == 5);
  CHECK(reading.stride(0) == 2);
}

}  // namespace tensor_tensor_view_test
