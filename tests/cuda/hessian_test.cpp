// A Hessian made fit for a sweep: the order, what is dead, the ladder of damping, and the factor of exactly that
// matrix.
#include "cuda/support.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/hessian.cuh>
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace cuda_hessian_test {

using namespace slimtrim;

namespace {

// Xᵀ X of more rows than columns, columns of different size; column `dead` and column m - 1 never used.
tensor<float, 2> hessian(index_t m, index_t dead) {
  tensor<float, 2> H(m, m);
  H.fill(0.0F);
  for (index_t t = 0; t < 3 * m; ++t)
    for (index_t i = 0; i < m; ++i)
      for (index_t j = 0; j < m; ++j) {
        auto const x = [&](index_t k) {
          return k == dead || (dead >= 0 && k == m - 1)
                     ? 0.0
                     : (1 + static_cast<double>(k * 5 % 7)) *
                           normal_at(4, static_cast<std::uint64_t>(t), static_cast<std::uint64_t>(k));
        };
        H(i, j) += static_cast<float>(x(i) * x(j));
      }
  return H;
}

void check(index_t m, index_t dead, column_order order) {
  CAPTURE(m);
  cuda_tests::device_memory device;
  auto const H = hessian(m, dead);
  auto const R = device.matrix<float>(m, m);
  damping const ladder;
  auto const found =
      cuda::prepare_hessian(device.backend().on(), as_const(device.upload_matrix<float>(H)), order, ladder, R);
  REQUIRE(found.usable);
  CHECK(found.finite);
  CHECK(found.damp == ladder.first);
  std::vector<std::int32_t> expected;
  double sum = 0;
  index_t dead_columns = 0;
  for (std::int32_t j = 0; j < m; ++j) {
    expected.push_back(j);
    sum += static_cast<double>(H(j, j));
    dead_columns += H(j, j) > 0 ? 0 : 1;
    CHECK(found.is_dead[static_cast<std::size_t>(j)] == (H(j, j) > 0 ? 0 : 1));
  }
  CHECK(found.dead == dead_columns);
  double const unit = sum / static_cast<double>(m - dead_columns);
  CHECK(found.unit == doctest::Approx(unit).epsilon(1e-12));
  // The largest diagonal first, equal ones in their order: by insertion.
  if (order == column_order::activation)
    for (std::size_t i = 1; i < expected.size(); ++i)
      for (std::size_t k = i; k > 0 && H(expected[k], expected[k]) > H(expected[k - 1], expected[k - 1]); --k)
        std::swap(expected[k], expected[k - 1]);
  CHECK(found.order == expected);
  // (Rᵀ R) times the damped matrix in sweep order is one; floats, and a condition below 1e5 with this damping.
  auto const r = device.download<float>(R);
  auto const at = [&](index_t i, index_t j) { return static_cast<double>(r[static_cast<std::size_t>(i * m + j)]); };
  auto const damped = [&](index_t i, index_t j) {
    std::int32_t const a = expected[static_cast<std::size_t>(i)], b = expected[static_cast<std::size_t>(j)];
    if (!(H(a, a) > 0) || !(H(b, b) > 0)) return i == j ? 1.0 : 0.0;
    return static_cast<double>(H(a, b)) / unit + (i == j ? ladder.first : 0.0);
  };
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < m; ++j) {
      double product = 0;
      for (index_t k = 0; k < m; ++k)
        for (index_t l = 0; l <= std::min(i, k); ++l) product += at(l, i) * at(l, k) * damped(k, j);
      REQUIRE(std::abs(product - (i == j ? 1 : 0)) <= 1e5 * 0x1p-23);
    }
}

}  // namespace

TEST_CASE("hessian: the first element that is not finite, in the order of rows, whatever the layout") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  for (auto const how :
       {backend_tests::layout::rows, backend_tests::layout::columns, backend_tests::layout::padded_rows}) {
    tensor<float, 2> X(17, 23);
    X.fill(1.0F);
    CHECK(cuda::first_not_finite<float>(on, as_const(device.upload_matrix<float>(X, how))) == -1);
    X(16, 22) = std::numeric_limits<float>::infinity();
    CHECK(cuda::first_not_finite<float>(on, as_const(device.upload_matrix<float>(X, how))) == 17 * 23 - 1);
    X(3, 20) = std::numeric_limits<float>::quiet_NaN();
    X(4, 0) = -std::numeric_limits<float>::infinity();
    CHECK(cuda::first_not_finite<float>(on, as_const(device.upload_matrix<float>(X, how))) == 3 * 23 + 20);
    X(0, 0) = std::numeric_limits<float>::quiet_NaN();
    CHECK(cuda::first_not_finite<float>(on, as_const(device.upload_matrix<float>(X, how))) == 0);
  }
  CHECK(cuda::first_not_finite<float>(on, as_const(device.matrix<float>(0, 4))) == -1);
}

TEST_CASE("hessian: the diagonal of a matrix in any layout") {
  cuda_tests::device_memory device;
  tensor<float, 2> H(17, 17);
  for (index_t i = 0; i < 17; ++i)
    for (index_t j = 0; j < 17; ++j) H(i, j) = static_cast<float>(i == j ? i : 100);
  for (auto const how :
       {backend_tests::layout::rows, backend_tests::layout::columns, backend_tests::layout::padded_rows}) {
    auto const d = cuda::download_diagonal(device.backend().on(), as_const(device.upload_matrix<float>(H, how)));
    REQUIRE(d.size() == 17);
    for (std::size_t i = 0; i < 17; ++i) CHECK(d[i] == static_cast<float>(i));
  }
}

TEST_CASE("hessian: natural order and that of activity, dead columns, one column") {
  for (auto const order : {column_order::natural, column_order::activation}) {
    check(1, -1, order);
    check(17, -1, order);
    check(20, 4, order);
  }
}

TEST_CASE("hessian: damped further until it has a factor; nothing to prepare; what does not fit") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  // Eigenvalues 1 - 1.05 and 1 + 1.05 of a unit diagonal: the first damping is too little, 0.1 is enough.
  tensor<float, 2> H(2, 2);
  H(0, 0) = H(1, 1) = 2.0F;
  H(0, 1) = H(1, 0) = 2.1F;
  auto const R = device.matrix<float>(2, 2);
  auto const prepare = [&](tensor<float, 2> const& from, damping const& ladder) {
    return cuda::prepare_hessian(on, as_const(device.upload_matrix<float>(from)), column_order::natural, ladder, R);
  };
  auto const damped = prepare(H, {0.01, 3});
  CHECK(damped.usable);
  CHECK(damped.damp_step == 1);
  CHECK(damped.damp == doctest::Approx(0.1));
  CHECK_FALSE(prepare(H, {0.0001, 2}).usable);
  tensor<float, 2> zeros(2, 2);
  zeros.fill(0.0F);
  auto const idle = prepare(zeros, {});
  CHECK_FALSE(idle.usable);
  CHECK(idle.dead == 2);
  H(1, 0) = std::numeric_limits<float>::quiet_NaN();
  auto const broken = prepare(H, {});
  CHECK_FALSE(broken.usable);
  CHECK_FALSE(broken.finite);
  auto const refuse = [&](index_t rows, index_t columns, index_t factor_rows, index_t factor_columns) {
    static_cast<void>(cuda::prepare_hessian(on, as_const(device.matrix<float>(rows, columns)), column_order::natural,
                                            {}, device.matrix<float>(factor_rows, factor_columns)));
  };
  CHECK_THROWS_WITH_AS(refuse(4, 5, 4, 4), "cuda::prepare_hessian: columns of a square Hessian: expected 4, found 5",
                       error);
  CHECK_THROWS_WITH_AS(refuse(4, 4, 5, 4), "cuda::prepare_hessian: rows of the factor: expected 4, found 5", error);
  CHECK_THROWS_WITH_AS(refuse(4, 4, 4, 3), "cuda::prepare_hessian: columns of the factor: expected 4, found 3", error);
}

}  // namespace cuda_hessian_test
