#include "kernel_suite.hpp"

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/simd/backend.hpp>

#include <limits>

namespace simd_rows_test {

using namespace simd_suite;

static_assert(requires(simd_backend const& b, matrix_view<float const> x, vector_view<float> y) { b.row_cosines(x, x, y); });
static_assert(
    requires(simd_backend const& b, matrix_view<bfloat16 const> x, vector_view<float> y) { b.row_cosines(x, x, y); });

namespace {

template <class T>
void compare_with_reference(random_source& random, index_t rows, index_t columns, float size) {
  spaced_matrix<T> X(random, rows, columns, random.coin()), Y(random, rows, columns, random.coin());
  for (index_t i = 0; i < rows; ++i) {
    bool const zero = random.below(6) == 0;
    for (index_t k = 0; k < columns; ++k) {
      X.view(i, k) = T(zero ? 0.0F : random.uniform() * size);
      Y.view(i, k) = T(static_cast<float>(X.view(i, k)) + random.uniform() * size * 0.5F);
    }
  }
  thread_pool two(2);
  std::vector<float> expected(static_cast<std::size_t>(rows)), found(expected), threaded(expected);
  auto const n = rows;
  row_cosines(reference_backend{}, as_const(X.view), as_const(Y.view), vector_view<float>(expected.data(), n));
  row_cosines(simd_backend{}, as_const(X.view), as_const(Y.view), vector_view<float>(found.data(), n));
  row_cosines(simd_backend(two), as_const(X.view), as_const(Y.view), vector_view<float>(threaded.data(), n));
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK(std::fabs(expected[i] - found[i]) <= 1e-5F);
  CHECK(same_bits(found, threaded));
}

}  // namespace

TEST_CASE("row cosines equal the reference: any storage type, stride, size of values, zero rows") {
  random_source random{21};
  for (int i = 0; i < 60; ++i) {
    index_t const rows = random.between(0, 70), columns = random.between(1, 150);
    compare_with_reference<float>(random, rows, columns, i % 3 == 0 ? 1e-25F : (i % 3 == 1 ? 1.0F : 1e25F));
    compare_with_reference<bfloat16>(random, rows, columns, i % 2 == 0 ? 1.0F : 1e-22F);
    compare_with_reference<float16>(random, rows, columns, 1.0F);
  }
  compare_with_reference<float>(random, 3, 9001, 1.0F);
}

TEST_CASE("a row that is not finite is refused") {
  tensor<float, 2> X(2, 9), Y(2, 9);
  X.fill(1), Y.fill(1);
  Y(1, 8) = std::numeric_limits<float>::infinity();
  std::vector<float> out(2);
  CHECK_THROWS_AS(row_cosines(simd_backend{}, X.view(), Y.view(), vector_view<float>(out.data(), 2)), numeric_error);
  Y(1, 8) = std::nanf("");
  CHECK_THROWS_AS(row_cosines(simd_backend{}, X.view(), Y.view(), vector_view<float>(out.data(), 2)), numeric_error);
}

}  // namespace simd_rows_test
