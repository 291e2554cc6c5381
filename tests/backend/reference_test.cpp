// The reference backend against definitions: closed forms and identities, not against itself.
#include "backend/backend_suite.hpp"

#include <slimtrim/tensor/buffer.hpp>

#include <cmath>

namespace backend_reference_test {

using namespace slimtrim;
using reference_harness = backend_tests::host_harness<reference_backend>;

SLIMTRIM_BACKEND_SUITE(reference_harness)

namespace {

constexpr reference_backend reference{};

tensor<double, 2> from(std::initializer_list<std::initializer_list<double>> lines) {
  tensor<double, 2> x(static_cast<index_t>(lines.size()), static_cast<index_t>(lines.begin()->size()));
  index_t i = 0;
  for (auto const& line : lines) {
    index_t j = 0;
    for (double value : line) x(i, j++) = value;
    ++i;
  }
  return x;
}

}  // namespace

TEST_CASE("reference: dot adds in double even for float operands") {
  // 1 + 2^-24 is not a float; the sum of 1 and three 2^-24 is seen only in double.
  float const x[4] = {1.0F, 0x1p-12F, 0x1p-12F, 0x1p-12F};
  CHECK(reference.dot(vector_view<float const>(x, 4), vector_view<float const>(x, 4)) == 1.0 + 3 * 0x1p-24);
}

TEST_CASE("reference: gemm by hand") {
  auto const A = from({{1, 2}, {3, 4}, {5, 6}}), B = from({{1, 0, -1}, {2, 1, 0}});
  auto C = from({{1, 1, 1}, {1, 1, 1}, {1, 1, 1}});
  reference.gemm(2.0, A.view(), B.view(), 10.0, C.view());
  auto const expected = from({{20, 14, 8}, {32, 18, 4}, {44, 22, 0}});
  for (index_t i = 0; i < 3; ++i)
    for (index_t j = 0; j < 3; ++j) CHECK(C(i, j) == expected(i, j));
}

TEST_CASE("reference: gram_update by hand") {
  auto const X = from({{1, 2}, {3, 4}});
  auto H = from({{1, 0}, {0, 1}});
  reference.gram_update(0.5, X.view(), H.view());
  CHECK(H(0, 0) == 6.0);
  CHECK(H(0, 1) == 7.0);
  CHECK(H(1, 0) == 7.0);
  CHECK(H(1, 1) == 11.0);
}

TEST_CASE("reference: the inverse factor is upper and whitens, R H Rᵀ = I") {
  // H = U Uᵀ with U = [[2, 1], [0, 3]], so R = U⁻¹ = [[1/2, -1/6], [0, 1/3]].
  auto const H = from({{5, 3}, {3, 9}});
  tensor<double, 2> R(2, 2);
  REQUIRE(reference.inverse_factor(as_const(H.view()), R.view()));
  CHECK(R(0, 0) == doctest::Approx(0.5).epsilon(1e-15));
  CHECK(R(0, 1) == doctest::Approx(-1.0 / 6).epsilon(1e-15));
  CHECK(R(1, 0) == 0.0);
  CHECK(R(1, 1) == doctest::Approx(1.0 / 3).epsilon(1e-15));
}

TEST_CASE("reference: R of a random matrix satisfies H⁻¹ = Rᵀ R") {
  index_t const m = 40;
  auto H = backend_tests::well_conditioned<double>(m, backend_tests::layout::rows, 31);
  tensor<double, 2> R(m, m), inverse(m, m), product(m, m);
  REQUIRE(reference.inverse_factor(as_const(H.host()), R.view()));
  auto const upper = as_const(R.view());
  reference.gemm(1.0, transposed(upper), upper, 0.0, inverse.view());
  reference.gemm(1.0, as_const(inverse.view()), as_const(H.host()), 0.0, product.view());
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < m; ++j) CHECK(std::abs(product(i, j) - (i == j ? 1.0 : 0.0)) < 1e-13);
}

TEST_CASE("reference: a solved system gives the right-hand side back") {
  auto H = from({{4, 1, 0}, {1, 3, 1}, {0, 1, 2}});
  auto B = from({{4 + 2}, {1 + 6 + 3}, {2 + 6}});  // H times (1, 2, 3)
  REQUIRE(reference.solve_positive_definite(H.view(), B.view()));
  for (index_t i = 0; i < 3; ++i) CHECK(B(i, 0) == doctest::Approx(static_cast<double>(i + 1)).epsilon(1e-14));
}

TEST_CASE("reference: top_k by hand: ties to the lower index, NaN last, minus infinity before NaN") {
  double const nan = std::nan("");
  auto const X = from({{1, 3, 3, 2}, {nan, -INFINITY, nan, 0}, {nan, nan, nan, nan}, {0.0, -0.0, 5, 5}});
  tensor<std::int32_t, 2> order(4, 4);
  reference.top_k(as_const(X.view()), order.view());
  std::int32_t const expected[4][4] = {{1, 2, 3, 0}, {3, 1, 0, 2}, {0, 1, 2, 3}, {2, 3, 0, 1}};
  for (index_t i = 0; i < 4; ++i)
    for (index_t j = 0; j < 4; ++j) CHECK(order(i, j) == expected[i][j]);
}

}  // namespace backend_reference_test
