// Products of views of any layout against sums in double, and which layouts cuBLAS gets as they are.
#include "cuda/support.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/blas.cuh>
#include <doctest/doctest.h>

#include <climits>
#include <cmath>
#include <type_traits>

namespace cuda_blas_test {

using namespace slimtrim;
using backend_tests::layout;
using backend_tests::operand;

namespace {

template <class T>
double wide(T x) {
  if constexpr (std::is_same_v<T, double>)
    return x;
  else
    return static_cast<double>(static_cast<float>(x));
}

struct harness : cuda_tests::device_memory {
  static constexpr space memory = space::device;
};

// 16-bit operands too, in guarded storage, whose poison and random elements are made from floats.
template <class T>
operand<T> random(index_t n, index_t m, layout how, std::uint64_t stream) {
  operand<T> x(n, m, how);
  auto const view = x.host();
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < m; ++j)
      view(i, j) = T(static_cast<float>(normal_at(19, stream, static_cast<std::uint64_t>(i * 100 + j))));
  x.record();
  return x;
}

template <class T, class Result>
void check(harness& device, index_t n, index_t k, index_t m, layout a, layout b, layout c, Result alpha, Result beta) {
  CAPTURE(static_cast<int>(a));
  CAPTURE(static_cast<int>(b));
  CAPTURE(static_cast<int>(c));
  CAPTURE(k);
  auto A = random<T>(n, k, a, 1), B = random<T>(k, m, b, 2);
  auto C = beta == Result{0} ? operand<Result>(n, m, c) : random<Result>(n, m, c, 3);  // poison where it is not read
  auto const before = C;
  {
    backend_tests::placed<harness, T> const x(device, A), y(device, B);
    backend_tests::placed<harness, Result> const z(device, C);
    cuda::gemm<T, Result>(device.backend().on(), alpha, x.reading(), y.reading(), beta, z.view());
  }
  CHECK(A.untouched());
  CHECK(B.untouched());
  CHECK(C.intact_outside());
  auto const x = as_const(A.host()), y = as_const(B.host());
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < m; ++j) {
      double sum = beta == Result{0} ? 0.0 : static_cast<double>(beta) * wide(before.host()(i, j)),
             size = std::abs(sum);
      for (index_t l = 0; l < k; ++l) {
        double const product = static_cast<double>(alpha) * wide(x(i, l)) * wide(y(l, j));
        sum += product;
        size += std::abs(product);
      }
      // Each of the k products, sums and the two scalings may round, in whatever order.
      double const unit = std::is_same_v<Result, double> ? 0x1p-52 : 0x1p-23;
      REQUIRE(std::abs(static_cast<double>(C.host()(i, j)) - sum) <= static_cast<double>(k + 3) * unit * size);
    }
}

template <class T, class Result>
void check_layouts() {
  harness device;  // one for all: a handle of cuBLAS has memory of its own
  for (layout a : backend_tests::all_layouts)
    for (layout b : backend_tests::all_layouts)
      for (layout c : backend_tests::writable_layouts) {
        check<T, Result>(device, 5, 4, 3, a, b, c, Result{1.5}, Result{0});
        check<T, Result>(device, 5, 4, 3, a, b, c, Result{-1}, Result{0.5});
      }
}

device_matrix<float> seen(index_t rows, index_t columns, index_t down, index_t across) {
  index_t const sizes[2] = {rows, columns}, steps[2] = {down, across};
  return device_matrix<float>(nullptr, sizes, steps);
}

}  // namespace

TEST_CASE("cuda blas: C = alpha A B + beta C for every three layouts, and nothing else is touched") {
  check_layouts<float, float>();
  check_layouts<double, double>();
  check_layouts<bfloat16, float>();
}

TEST_CASE("cuda blas: one, nothing, and nothing to add up") {
  harness device;
  for (index_t n : {0, 1, 17})
    for (index_t k : {0, 1, 17})
      for (index_t m : {0, 1, 17})
        for (layout how : {layout::rows, layout::columns, layout::scattered})
          for (float beta : {0.0F, 1.0F, -0.5F})
            check<float16, float>(device, n, k, m, layout::rows, how, how, 2.0F, beta);
}

TEST_CASE("cuda blas: which layouts are columns one behind the other, and how far apart") {
  using cuda::detail::column_major;
  using cuda::detail::leading_dimension;
  struct row {
    index_t rows, columns, down, across;
    bool fits;
    int leading;
  };
  for (row const& is :
       {row{3, 4, 1, 3, true, 3}, row{3, 4, 1, 5, true, 5}, row{3, 4, 4, 1, false, 0},
        row{3, 4, 1, 2, false, 0},  // columns that overlap
        row{3, 4, 1, 0, false, 0},  // the same column again
        row{3, 4, 2, 6, false, 0}, row{3, 4, -1, 3, false, 0}, row{3, 4, 1, -3, false, 0}, row{3, 1, 1, 0, true, 3},
        row{3, 1, 1, 7, true, 3}, row{3, 1, 2, 1, false, 0}, row{1, 4, 9, 1, true, 1}, row{1, 4, 9, 2, true, 2},
        row{1, 4, 9, 0, false, 0}, row{1, 1, 5, -2, true, 1}, row{0, 4, 4, 1, true, 1}}) {
    auto const x = seen(is.rows, is.columns, is.down, is.across);
    CAPTURE(is.rows);
    CAPTURE(is.columns);
    CAPTURE(is.down);
    CAPTURE(is.across);
    CHECK(column_major(x) == is.fits);
    if (is.fits) CHECK(leading_dimension(x) == is.leading);
  }
}

TEST_CASE("cuda blas: extents that cuBLAS cannot count are refused, and what products are formed in") {
  CHECK(cuda::detail::blas_size(INT_MAX) == INT_MAX);
  CHECK_THROWS_WITH_AS((void)cuda::detail::blas_size(index_t{INT_MAX} + 1),
                       "cuda::gemm: extent or stride: expected less than 2^31", error);
  using cuda::float_precision;
  CHECK(cuda::detail::blas_compute<float>(float_precision::single) == CUBLAS_COMPUTE_32F);
  CHECK(cuda::detail::blas_compute<float>(float_precision::tensor_float) == CUBLAS_COMPUTE_32F_FAST_TF32);
  for (auto precision : {float_precision::single, float_precision::tensor_float}) {
    CHECK(cuda::detail::blas_compute<double>(precision) == CUBLAS_COMPUTE_64F);
    CHECK(cuda::detail::blas_compute<bfloat16>(precision) == CUBLAS_COMPUTE_32F);
  }
}

}  // namespace cuda_blas_test
