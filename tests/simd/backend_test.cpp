#include "kernel_suite.hpp"

#include <slimtrim/backend/reference.hpp>
#include <slimtrim/simd/backend.hpp>

#include <limits>

namespace simd_backend_test {

using namespace simd_suite;

static_assert(tensor_backend<simd_backend> && host_backend<simd_backend>);
static_assert(fuses_product<simd_backend>, "the forward pass must take the packed kernels");

namespace {

tensor<float, 2> random_matrix(random_source& random, index_t n, index_t m, float size = 1) {
  tensor<float, 2> x(n, m);
  for (index_t i = 0; i < n * m; ++i) x.view().data[i] = random.uniform() * size;
  return x;
}

double distance(matrix_view<float const> a, matrix_view<float const> b) {
  double error = 0, norm = 1e-300;
  for (index_t i = 0; i < a.extent(0); ++i)
    for (index_t j = 0; j < a.extent(1); ++j) {
      double const x = static_cast<double>(a(i, j)), y = static_cast<double>(b(i, j));
      error += (x - y) * (x - y);
      norm += x * x;
    }
  return error / norm;
}

}  // namespace

TEST_CASE("the product of every kind of weight, prepared or not, is that of the reference") {
  random_source random{1};
  thread_pool pool(2);
  simd_backend const backend(pool);
  for (index_t tokens : {1, 3, 16, 17, 40}) {
    index_t const rows = 37, columns = 200;
    auto const X = random_matrix(random, tokens, columns);
    spaced_matrix<bfloat16> brain(random, rows, columns, true);
    spaced_matrix<float16> half(random, rows, columns, true);
    spaced_matrix<float> full(random, rows, columns, true);
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = 0; j < columns; ++j) {
        full.view(i, j) = random.uniform();
        brain.view(i, j) = bfloat16(full.view(i, j)), half.view(i, j) = float16(full.view(i, j));
      }
    std::vector<std::uint64_t> kept(static_cast<std::size_t>(rows * 4));
    for (auto& word : kept) word = random_bits_at(9, 9, random.next++);
    masked_view<bfloat16> masked;
    masked.values = as_const(brain.view);
    masked.mask.rows = rows, masked.mask.columns = columns, masked.mask.words = kept.data();
    masked.mask.words_per_row = 4;
    std::vector<random_codes> codes;
    for (int bits = 1; bits <= 8; ++bits) codes.emplace_back(random, rows, columns, bits);
    std::vector<weight_view> weights{as_const(full.view), as_const(brain.view), as_const(half.view), masked};
    for (auto const& each : codes) weights.emplace_back(each.view);
    for (auto const& w : weights) {
      CAPTURE(w.index());
      tensor<float, 2> expected(tokens, rows), found(tokens, rows), prepared(tokens, rows), elsewhere(tokens, rows);
      product(reference_backend{}, X.view(), w, expected.view());
      product(backend, X.view(), w, found.view());
      weight const ready = backend.prepare({w, {}});
      REQUIRE(simd::panels_of(ready.view) != nullptr);
      product(backend, X.view(), ready.view, prepared.view());
      product(reference_backend{}, X.view(), ready.view, elsewhere.view());
      CHECK(distance(expected.view(), found.view()) < 1e-11);
      CHECK(distance(expected.view(), prepared.view()) < 1e-11);
      CHECK(distance(expected.view(), elsewhere.view()) == 0);
    }
  }
}

TEST_CASE("weights that do not fit the layout take the generic product and give the same values") {
  random_source random{2};
  simd_backend const backend;
  random_codes codes(random, 9, 100, 4);
  codes.zeros.clear();
  codes.view.zeros = {};
  codes.view.block_rows = 1;
  std::vector<std::int32_t> order(100);
  for (std::size_t c = 0; c < order.size(); ++c) order[c] = static_cast<std::int32_t>(c % 5);
  std::vector<float> const scales(45, 0.25F);
  codes.view.block_columns = 20, codes.view.column_group = order.data();
  codes.view.scales = tensor_view<float const, 2>(scales.data(), 9, 5);
  auto const X = random_matrix(random, 3, 100);
  tensor<float, 2> expected(3, 9), found(3, 9);
  for (int odd_groups = 0; odd_groups < 2; ++odd_groups) {
    if (odd_groups == 1) codes.view.column_group = nullptr;
    product(reference_backend{}, X.view(), weight_view(codes.view), expected.view());
    product(backend, X.view(), weight_view(codes.view), found.view());
    CHECK(distance(expected.view(), found.view()) < 1e-11);
    CHECK(simd::panels_of(backend.prepare({codes.view, {}}).view) == nullptr);
  }
  tensor<float16, 2> half(2, 4);
  half.fill(float16(1.0F));
  half(1, 2) = float16(std::numeric_limits<float>::infinity());
  CHECK(simd::panels_of(backend.prepare({weight_view(as_const(half.view())), {}}).view) == nullptr);
  tensor<float, 2> many(20, 4), product_of(20, 2);
  many.fill(1.0F);
  product(backend, many.view(), weight_view(as_const(half.view())), product_of.view());
  CHECK(product_of(19, 0) == 4.0F);
  CHECK(std::isinf(product_of(19, 1)));
}

TEST_CASE("tiny and huge activations keep their digits") {
  random_source random{3};
  simd_backend const backend;
  random_codes codes(random, 11, 256, 4);
  for (float size : {1e-36F, 1e-30F, 1.0F, 1e36F}) {
    auto const X = random_matrix(random, 2, 256, size);
    tensor<float, 2> expected(2, 11), found(2, 11);
    product(reference_backend{}, X.view(), weight_view(codes.view), expected.view());
    product(backend, X.view(), weight_view(codes.view), found.view());
    double const scale = 1.0 / static_cast<double>(size);
    for (index_t i = 0; i < 22; ++i)
      CHECK(static_cast<double>(found.view().data[i]) * scale ==
            doctest::Approx(static_cast<double>(expected.view().data[i]) * scale).epsilon(1e-4).scale(1e-2));
  }
}

TEST_CASE("eight-bit activations are used only when asked for, and refuse what is not finite") {
  random_source random{4};
  random_codes codes(random, 16, 128, 4);
  auto X = random_matrix(random, 2, 128);
  tensor<float, 2> exact(2, 16), rounded(2, 16), reference(2, 16);
  product(reference_backend{}, X.view(), weight_view(codes.view), reference.view());
  product(simd_backend{}, X.view(), weight_view(codes.view), exact.view());
  simd_backend const fast({.activations = activation_kind::int8});
  product(fast, X.view(), weight_view(codes.view), rounded.view());
  CHECK(distance(reference.view(), exact.view()) < 1e-11);
  double const off = distance(reference.view(), rounded.view());
  CHECK(off > 1e-9);
  CHECK(off < 1e-3);
  X(1, 77) = std::nanf("");
  CHECK_THROWS_AS(product(fast, X.view(), weight_view(codes.view), rounded.view()), numeric_error);
  X(1, 77) = std::numeric_limits<float>::infinity();
  CHECK_THROWS_AS(product(fast, X.view(), weight_view(codes.view), rounded.view()), numeric_error);
}

TEST_CASE("no tokens, one row, one column and zero scales are ordinary cases") {
  simd_backend const backend, fast({.activations = activation_kind::int8});
  std::uint32_t const word = 0xf;
  float scale = 0;
  quantized_view<> one;
  one.rows = 1, one.columns = 1, one.bits = 4, one.words = &word, one.words_per_row = 1, one.block_columns = 32;
  one.scales = tensor_view<float const, 2>(&scale, 1, 1);
  tensor<float, 2> x(1, 1), y(1, 1), none(0, 1), nothing(0, 1);
  x(0, 0) = 3;
  for (auto const* each : {&backend, &fast}) {
    product(*each, none.view(), weight_view(one), nothing.view());
    y(0, 0) = std::nanf("");
    scale = 0;
    product(*each, x.view(), weight_view(one), y.view());
    CHECK(y(0, 0) == 0.0F);
    scale = 2;
    product(*each, x.view(), weight_view(one), y.view());
    CHECK(y(0, 0) == doctest::Approx(42.0F));  // (15 - 8) * 2 * 3
  }
}

}  // namespace simd_backend_test
