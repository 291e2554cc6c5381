#include <doctest/doctest.h>
#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/linalg/product.hpp>

#include <cmath>
#include <cstring>

namespace linalg_product_test {

using namespace slimtrim;

namespace {

tensor<float, 2> random_matrix(std::uint64_t stream, index_t n, index_t m) {
  tensor<float, 2> x(n, m);
  for (index_t i = 0; i < n * m; ++i) x.view().data[i] = static_cast<float>(normal_at(3, stream, static_cast<std::uint64_t>(i)));
  return x;
}

}  // namespace

TEST_CASE("product equals the triple loop for float, bfloat16 and quantised weights") {
  thread_pool pool(2);
  for (index_t tokens : {0, 1, 2, 17}) {
    for (index_t out : {1, 5, 128, 131}) {
      index_t const in = 96;
      auto const X = random_matrix(1, tokens, in);
      auto const W = random_matrix(2, out, in);
      tensor<bfloat16, 2> stored(out, in);
      for (index_t i = 0; i < out * in; ++i) stored.view().data[i] = bfloat16(W.view().data[i]);
      for (bool narrow : {false, true}) {
        weight_view const w = narrow ? weight_view(as_const(stored.view())) : weight_view(W.view());
        auto const dense = expand(w);
        tensor<float, 2> Y(tokens, out), serial(tokens, out);
        Y.fill(std::nanf(""));
        product(eigen_backend(pool), X.view(), w, Y.view());
        product(eigen_backend(), X.view(), w, serial.view());
        CHECK(std::memcmp(Y.view().data, serial.view().data, sizeof(float) * static_cast<std::size_t>(tokens * out)) == 0);
        double error = 0, norm = 1e-30;
        for (index_t t = 0; t < tokens; ++t)
          for (index_t o = 0; o < out; ++o) {
            double sum = 0;
            for (index_t i = 0; i < in; ++i) sum += static_cast<double>(X(t, i)) * static_cast<double>(dense(o, i));
            error += (sum - static_cast<double>(Y(t, o))) * (sum - static_cast<double>(Y(t, o)));
            norm += sum * sum;
          }
        // Float sums of 96 terms: relative error about 96 * 2^-24 a term at most, 3e-11 squared.
        CHECK(error <= 1e-10 * norm);
      }
    }
  }
}

TEST_CASE("product refuses extents that disagree, with both numbers") {
  auto const X = random_matrix(1, 2, 8);
  auto const W = random_matrix(2, 3, 9);
  tensor<float, 2> Y(2, 3);
  CHECK_THROWS_WITH_AS(product(reference_backend{}, X.view(), weight_view(W.view()), Y.view()),
                       "product: columns of the activations against the weight's: expected 9, found 8", error);
}

namespace {

// Counts, to prove that a member named `product` takes over.
struct counting_backend : reference_backend {
  int* calls;
  void product(matrix_view<float const>, weight_view const&, matrix_view<float>) const { ++*calls; }
};
static_assert(fuses_product<counting_backend>);
static_assert(!fuses_product<reference_backend>);

}  // namespace

TEST_CASE("a backend's own product is taken") {
  int calls = 0;
  counting_backend const backend{{}, &calls};
  auto const X = random_matrix(1, 2, 8);
  auto const W = random_matrix(2, 3, 8);
  tensor<float, 2> Y(2, 3);
  product(backend, X.view(), weight_view(W.view()), Y.view());
  CHECK(calls == 1);
}

}  // namespace linalg_product_test
