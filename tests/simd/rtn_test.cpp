#include "kernel_suite.hpp"

#include <slimtrim/simd/backend.hpp>

#include <limits>

namespace simd_rtn_test {

using namespace simd_suite;

static_assert(requires(simd_backend const& b, matrix_view<bfloat16 const> w, quantize_options o, quantized_matrix& out,
                       vector_view<float const> v) { b.rtn_into(w, o, out, v); });

namespace {

bool same(quantized_matrix const& a, quantized_matrix const& b) {
  auto equal = [](auto const& x, auto const& y) {
    auto const n = static_cast<std::size_t>(x.view().size());
    return x.view().size() == y.view().size() &&
           (n == 0 || std::memcmp(x.view().data, y.view().data, n * sizeof(x.view().data[0])) == 0);
  };
  return equal(a.words, b.words) && equal(a.scales, b.scales) && equal(a.zeros, b.zeros);
}

template <class T>
void compare(random_source& random, executor& pool, quantized_matrix& used) {
  index_t const rows = random.between(0, 40),
                columns = random.coin() ? 32 * random.between(1, 9) : random.between(1, 200);
  spaced_matrix<T> W(random, rows, columns, random.coin());
  index_t const size = random.below(6);
  for (index_t i = 0; i < rows; ++i)
    for (index_t k = 0; k < columns; ++k) {
      float value = random.uniform();
      if (size == 0) value *= 1e-39F;
      if (size == 1) value = std::ldexp(value, 100);
      if (size == 2) value = static_cast<float>(random.between(-8, 8)) / 2;  // ties, and the ends of the range
      if (size == 3 && random.coin()) value = random.coin() ? 0.0F : -0.0F;
      W.view(i, k) = T(std::is_same_v<T, float16> && size == 1 ? random.uniform() : value);
    }
  quantize_options options;
  index_t const group[] = {32, 64, 128, columns, 20};
  options.groups.size = group[random.below(5)];
  if (random.below(5) == 0) options.groups.kind = group_kind::channel;
  if (random.below(8) == 0) options.groups.kind = group_kind::tensor;
  options.grid = {random.below(4) == 0 ? 3 : 4, random.below(5) != 0};
  if (random.below(8) == 0) options.scale = scale_rule::mse;
  scale_type const stored[] = {scale_type::float32, scale_type::bfloat16, scale_type::float16};
  options.scales_stored_as = stored[random.below(3)];
  auto const expected = rtn(eigen_backend{}, as_const(W.view), options);
  CHECK(same(expected, rtn(simd_backend{}, as_const(W.view), options)));
  rtn_into(simd_backend(pool), as_const(W.view), options, used);
  CHECK(same(expected, used));
}

}  // namespace

TEST_CASE("round to nearest gives the bytes of the generic one: any type, stride, group, grid and size of values") {
  random_source random{51};
  thread_pool pool(3);
  quantized_matrix used;  // takes one shape after another
  for (int i = 0; i < 400; ++i) {
    compare<float>(random, pool, used);
    compare<bfloat16>(random, pool, used);
    compare<float16>(random, pool, used);
  }
}

TEST_CASE("memory of the right shape is used again, by the generic code too") {
  tensor<float, 2> W(4, 64);
  W.fill(1.0F);
  quantized_matrix out = rtn(simd_backend{}, as_const(W.view()));
  std::uint32_t const* const words = out.words.view().data;
  W.fill(-2.0F);
  rtn_into(simd_backend{}, as_const(W.view()), {}, out);
  CHECK(out.words.view().data == words);
  CHECK(same(out, rtn(eigen_backend{}, as_const(W.view()))));
  rtn_into(eigen_backend{}, as_const(W.view()), {}, out);
  CHECK(out.words.view().data == words);
  quantize_options options;
  options.grid = {3, false};
  rtn_into(simd_backend{}, as_const(W.view()), options, out);
  CHECK(same(out, rtn(eigen_backend{}, as_const(W.view()), options)));
}

TEST_CASE("the first value that is not finite is named") {
  tensor<float, 2> W(3, 64);
  for (index_t i = 0; i < 3 * 64; ++i) W.view().data[i] = static_cast<float>(i % 17) - 8.5F;
  auto const options = quantize_options{};
  CHECK(simd::covers_rtn<float>(W.view(), options));
  W(1, 33) = -std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH_AS(static_cast<void>(rtn(simd_backend{}, as_const(W.view()), options)),
                       "rtn: W[1, 33]: expected a finite value, found Inf", input_error);
  W(0, 2) = std::nanf("");
  CHECK_THROWS_WITH_AS(static_cast<void>(rtn(simd_backend{}, as_const(W.view()), options)),
                       "rtn: W[0, 2]: expected a finite value, found NaN", input_error);
}

}  // namespace simd_rtn_test
