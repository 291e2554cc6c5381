// What is a tensor among xtensor's types. adapt.hpp comes first: it must not need xtensor's headers.
#include <slimtrim/tensor/adapt.hpp>

#include <doctest/doctest.h>
#include <xtensor/xadapt.hpp>
#include <xtensor/xarray.hpp>
#include <xtensor/xfixed.hpp>
#include <xtensor/xmath.hpp>
#include <xtensor/xstrided_view.hpp>
#include <xtensor/xtensor.hpp>
#include <xtensor/xview.hpp>

#include <complex>
#include <type_traits>
#include <utility>
#include <vector>

namespace tensor_adapt_xtensor_test {

using namespace slimtrim;

using matrix2 = xt::xtensor<float, 2>;
using columns2 = xt::xtensor<float, 2, xt::layout_type::column_major>;
using any_array = xt::xarray<float>;

// Accepted. A run-time rank is checked when the view is made.
static_assert(matrix_like<matrix2> && matrix_like<columns2 const&> && vector_like<xt::xtensor<double, 1>>);
static_assert(matrix_like<any_array> && vector_like<any_array> && tensor_like<any_array, 3>);
static_assert(matrix_like<xt::xtensor_fixed<float, xt::xshape<2, 3>>>);
static_assert(matrix_like<decltype(xt::view(std::declval<matrix2&>(), xt::range(0, 1), xt::all()))>);
static_assert(vector_like<decltype(xt::view(std::declval<matrix2&>(), 0, xt::all()))>);
static_assert(matrix_like<decltype(xt::view(std::declval<any_array const&>(), xt::all(), xt::range(0, 4, 2)))>);
static_assert(matrix_like<decltype(xt::transpose(std::declval<matrix2&>()))>);
static_assert(vector_like<decltype(xt::row(std::declval<matrix2&>(), 0))>);
static_assert(vector_like<decltype(xt::adapt(std::declval<std::vector<float>&>()))>);
// Rejected: expressions that have no storage.
static_assert(!matrix_like<decltype(std::declval<matrix2&>() + std::declval<matrix2&>())>);
static_assert(!matrix_like<decltype(2.0F * std::declval<any_array&>())>);
static_assert(!vector_like<decltype(xt::sum(std::declval<matrix2&>(), {0}))>);
static_assert(!matrix_like<decltype(xt::cast<double>(std::declval<matrix2&>()))>);
static_assert(!matrix_like<decltype(xt::view(std::declval<matrix2&>() + 1.0F, xt::all(), xt::all()))>);
static_assert(!matrix_like<decltype(xt::zeros<float>({2, 2}))>);
static_assert(!matrix_like<decltype(xt::broadcast(std::declval<xt::xtensor<float, 1>&>(), {2, 2}))>);
// Rejected: wrong rank, foreign elements.
static_assert(!vector_like<matrix2> && !matrix_like<xt::xtensor<float, 3>> && !matrix_like<xt::xtensor<float, 1>>);
static_assert(!vector_like<xt::xtensor_fixed<float, xt::xshape<2, 3>>>);
static_assert(!matrix_like<xt::xtensor<std::complex<float>, 2>> && !matrix_like<xt::xtensor<bool, 2>>);

namespace {

template <class X>
void check_equal(X&& x) {
  auto const view = as_matrix(x);
  REQUIRE(view.extent(0) == static_cast<index_t>(x.shape()[0]));
  REQUIRE(view.extent(1) == static_cast<index_t>(x.shape()[1]));
  for (index_t i = 0; i < view.extent(0); ++i)
    for (index_t j = 0; j < view.extent(1); ++j)
      CHECK(&view(i, j) == &x(static_cast<std::size_t>(i), static_cast<std::size_t>(j)));
}

template <class X>
X counted(std::size_t n, std::size_t m) {
  X x = X::from_shape({n, m});
  float next = 0;
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t j = 0; j < m; ++j) x(i, j) = next++;
  return x;
}

}  // namespace

TEST_CASE("containers and views address xtensor's own elements") {
  auto by_rows = counted<matrix2>(5, 8);
  auto by_columns = counted<columns2>(5, 8);
  auto any = counted<any_array>(5, 8);
  check_equal(by_rows);
  check_equal(by_columns);
  check_equal(any);
  check_equal(xt::view(by_rows, xt::range(1, 4), xt::range(2, 7)));
  check_equal(xt::view(by_columns, xt::range(1, 4), xt::range(1, 8, 3)));
  check_equal(xt::view(any, xt::range(2, 5), xt::all()));
  check_equal(xt::transpose(by_rows));
  check_equal(xt::strided_view(any, {xt::range(0, 5, 2), xt::range(1, 3)}));
}

TEST_CASE("rows and columns have rank one") {
  auto x = counted<matrix2>(3, 4);
  auto const r = as_vector(xt::view(x, 1, xt::all()));
  CHECK(r.extent(0) == 4);
  CHECK(&r(3) == &x(1, 3));
  auto column_view = xt::view(x, xt::all(), 2);
  auto const c = as_vector(column_view);
  CHECK(c.extent(0) == 3);
  CHECK(&c(2) == &x(2, 2));
}

TEST_CASE("a run-time rank that differs is a named error") {
  any_array const x = xt::zeros<float>({2, 3, 4});
  CHECK_THROWS_WITH_AS(static_cast<void>(as_matrix(x)),
                       "as_tensor: dimensions of an xtensor operand: expected 2, found 3", error);
  CHECK(as_tensor<3>(x).size() == 24);
}

TEST_CASE("const operands give reading views") {
  matrix2 const x = counted<matrix2>(2, 2);
  static_assert(std::is_same_v<decltype(as_matrix(x)), matrix_view<float const>>);
  CHECK(as_matrix(x)(1, 1) == 3);
}

TEST_CASE("extents of one and of zero are kept") {
  auto one_row = counted<matrix2>(1, 5);
  check_equal(one_row);
  auto one_column = counted<columns2>(5, 1);
  check_equal(one_column);
  matrix2 const none = matrix2::from_shape({0, 3});
  CHECK(as_matrix(none).empty());
  CHECK(as_matrix(none).extent(1) == 3);
}

}  // namespace tensor_adapt_xtensor_test
