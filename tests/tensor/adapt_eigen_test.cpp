// What is a tensor among Eigen's types. adapt.hpp comes first: it must not need Eigen's headers.
#include <slimtrim/tensor/adapt.hpp>

#include <Eigen/Core>
#include <doctest/doctest.h>

#include <complex>
#include <type_traits>
#include <utility>

namespace tensor_adapt_eigen_test {

using namespace slimtrim;

using row_matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using strided_map = Eigen::Map<Eigen::MatrixXf, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
template <class X>
using lvalue = X&;

// Accepted.
static_assert(matrix_like<Eigen::MatrixXf> && matrix_like<row_matrix const&> && matrix_like<Eigen::Matrix3d>);
static_assert(matrix_like<Eigen::ArrayXXf> && vector_like<Eigen::ArrayXd>);
static_assert(vector_like<Eigen::VectorXf> && vector_like<Eigen::RowVectorXd> && matrix_like<Eigen::VectorXf>);
static_assert(matrix_like<Eigen::Map<Eigen::MatrixXf const>> && matrix_like<strided_map>);
static_assert(matrix_like<Eigen::Ref<Eigen::MatrixXf>> && matrix_like<Eigen::Ref<row_matrix const> const&>);
static_assert(matrix_like<decltype(std::declval<Eigen::MatrixXf&>().block(0, 0, 1, 1))>);
static_assert(matrix_like<decltype(std::declval<Eigen::MatrixXf const&>().topRows(1))>);
static_assert(matrix_like<decltype(std::declval<Eigen::MatrixXf&>().transpose())>);
static_assert(vector_like<decltype(std::declval<Eigen::MatrixXf&>().row(0))>);
static_assert(vector_like<decltype(std::declval<Eigen::MatrixXf&>().col(0))>);
static_assert(vector_like<decltype(std::declval<Eigen::VectorXf&>().segment(0, 1))>);
static_assert(vector_like<decltype(std::declval<Eigen::MatrixXf&>().diagonal())>);
static_assert(matrix_like<Eigen::MatrixXi>);
// Rejected: expressions that have no storage.
static_assert(!matrix_like<decltype(std::declval<Eigen::MatrixXf&>() + std::declval<Eigen::MatrixXf&>())>);
static_assert(!matrix_like<decltype(std::declval<Eigen::MatrixXf&>() * std::declval<Eigen::MatrixXf&>())>);
static_assert(!matrix_like<decltype(2.0F * std::declval<Eigen::MatrixXf&>())>);
static_assert(
    !matrix_like<decltype((std::declval<Eigen::MatrixXf&>() + std::declval<Eigen::MatrixXf&>()).transpose())>);
static_assert(!vector_like<decltype((std::declval<Eigen::MatrixXf&>() + std::declval<Eigen::MatrixXf&>()).row(0))>);
static_assert(!matrix_like<decltype(std::declval<Eigen::MatrixXf&>().cast<double>())>);
static_assert(!matrix_like<decltype(std::declval<Eigen::MatrixXf&>().cwiseAbs())>);
static_assert(!vector_like<decltype(std::declval<Eigen::VectorXf&>().reverse())>);
static_assert(!matrix_like<decltype(Eigen::MatrixXf::Zero(2, 2))>);
static_assert(!matrix_like<decltype(std::declval<Eigen::MatrixXf&>().triangularView<Eigen::Upper>())>);
// Rejected: wrong rank, foreign elements.
static_assert(!vector_like<Eigen::MatrixXf> && !vector_like<lvalue<Eigen::Map<row_matrix>>>);
static_assert(!tensor_like<Eigen::MatrixXf, 3>);
static_assert(!matrix_like<Eigen::MatrixXcf> && !matrix_like<Eigen::Matrix<bool, 2, 2>>);

namespace {

template <class X>
void check_equal(X&& x) {
  auto const view = as_matrix(x);
  REQUIRE(view.extent(0) == x.rows());
  REQUIRE(view.extent(1) == x.cols());
  for (index_t i = 0; i < x.rows(); ++i)
    for (index_t j = 0; j < x.cols(); ++j) CHECK(&view(i, j) == &x.coeffRef(i, j));
}

}  // namespace

TEST_CASE("storage orders, maps, references and parts address Eigen's own elements") {
  Eigen::MatrixXf by_columns = Eigen::MatrixXf::Random(5, 7);
  row_matrix by_rows = by_columns;
  check_equal(by_columns);
  check_equal(by_rows);
  check_equal(by_columns.block(1, 2, 3, 4));
  check_equal(by_rows.middleCols(2, 3));
  check_equal(by_rows.transpose());
  check_equal(Eigen::Ref<Eigen::MatrixXf>(by_columns));
  check_equal(strided_map(by_columns.data(), 2, 3, {10, 2}));
  check_equal(Eigen::Matrix3d(Eigen::Matrix3d::Random()));
}

TEST_CASE("vectors, rows, columns and diagonals have rank one") {
  Eigen::MatrixXf m = Eigen::MatrixXf::Random(4, 6);
  auto const r = as_vector(m.row(2));
  CHECK(r.extent(0) == 6);
  CHECK(&r(5) == &m(2, 5));
  auto const c = as_vector(m.col(3));
  CHECK(c.extent(0) == 4);
  CHECK(&c(1) == &m(1, 3));
  auto const d = as_vector(m.diagonal());
  CHECK(d.extent(0) == 4);
  CHECK(&d(2) == &m(2, 2));
  Eigen::RowVectorXd v = Eigen::RowVectorXd::Random(3);
  CHECK(&as_vector(v)(2) == &v(2));
  Eigen::VectorXf one(1);
  CHECK(as_vector(one).extent(0) == 1);
}

TEST_CASE("const operands give reading views") {
  Eigen::MatrixXf const m = Eigen::MatrixXf::Random(2, 2);
  static_assert(std::is_same_v<decltype(as_matrix(m)), matrix_view<float const>>);
  static_assert(std::is_same_v<decltype(as_matrix(std::declval<Eigen::Map<Eigen::MatrixXf const>&>())),
                               matrix_view<float const>>);
  CHECK(as_matrix(m)(1, 0) == m(1, 0));
}

TEST_CASE("empty matrices keep their extents") {
  Eigen::MatrixXf const m(0, 3);
  CHECK(as_matrix(m).extent(1) == 3);
  CHECK(as_matrix(m).empty());
}

}  // namespace tensor_adapt_eigen_test
