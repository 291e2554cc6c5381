#include "kernel_suite.hpp"

#include <slimtrim/simd/backend.hpp>
#include <slimtrim/slim/sparse/magnitude.hpp>

#include <limits>

namespace simd_select_test {

using namespace simd_suite;

static_assert(requires(simd_backend const& b, matrix_view<bfloat16 const> w, vector_view<float const> v, sparsity s) {
  b.wanda_mask(w, v, s);
});

namespace {

bool same(mask const& a, mask const& b) {
  bool equal = a.rows() == b.rows() && a.columns() == b.columns();
  for (index_t r = 0; equal && r < a.rows(); ++r)
    for (index_t w = 0; w < a.words_per_row(); ++w) equal = equal && a.word(r, w) == b.word(r, w);
  return equal;
}

template <class T>
void compare(random_source& random, executor& pool) {
  index_t const rows = random.between(0, 40),
                columns = random.coin() ? 64 * random.between(0, 5) : random.between(1, 200);
  spaced_matrix<T> W(random, rows, columns, random.coin());
  tensor<float, 1> moments(columns);
  for (index_t j = 0; j < columns; ++j)
    moments(j) = random.below(5) == 0 ? 0.0F : static_cast<float>(random.between(1, 9));
  if (random.below(8) == 0) moments.fill(0.0F);
  for (index_t i = 0; i < rows; ++i)
    for (index_t k = 0; k < columns; ++k)
      W.view(i, k) = T(random.coin() ? random.uniform() : static_cast<float>(random.between(-3, 3)));
  index_t const of[] = {4, 8, 5, 16};
  sparsity pattern;
  pattern.of = of[random.below(4)];
  pattern.keep = random.between(0, pattern.of);
  if (random.below(8) == 0) pattern = {.rate = 0.5};
  auto const expected = wanda_mask(eigen_backend{}, as_const(W.view), as_const(moments.view()), pattern);
  CHECK(same(expected, wanda_mask(simd_backend{}, as_const(W.view), as_const(moments.view()), pattern)));
  CHECK(same(expected, wanda_mask(simd_backend(pool), as_const(W.view), as_const(moments.view()), pattern)));
  CHECK(same(magnitude_mask(eigen_backend{}, as_const(W.view), pattern),
             magnitude_mask(simd_backend(pool), as_const(W.view), pattern)));
}

}  // namespace

TEST_CASE(
    "Wanda's and magnitude's masks are those of the generic code: any type, stride, pattern, ties and columns without "
    "input") {
  random_source random{52};
  thread_pool pool(3);
  for (int i = 0; i < 300; ++i) {
    compare<float>(random, pool);
    compare<bfloat16>(random, pool);
    compare<float16>(random, pool);
  }
}

TEST_CASE("a weight that is not finite is named, not ranked") {
  tensor<float, 2> W(3, 64);
  for (index_t i = 0; i < 3 * 64; ++i) W.view().data[i] = static_cast<float>(i % 17) - 8.5F;
  tensor<float, 1> moments(64);
  moments.fill(1.0F);
  sparsity const pattern{.keep = 2, .of = 4};
  W(2, 5) = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH_AS(
      static_cast<void>(wanda_mask(simd_backend{}, as_const(W.view()), as_const(moments.view()), pattern)),
      "wanda_mask: W[2, 5]: expected a finite value, found Inf", input_error);
  W(1, 63) = std::nanf("");
  CHECK_THROWS_WITH_AS(
      static_cast<void>(wanda_mask(simd_backend{}, as_const(W.view()), as_const(moments.view()), pattern)),
      "wanda_mask: W[1, 63]: expected a finite value, found NaN", input_error);
}

}  // namespace simd_select_test
