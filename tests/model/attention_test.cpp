#include <slimtrim/model/attention.hpp>

#include <slimtrim/backend/eigen.hpp>
#include <slimtrim/backend/reference.hpp>
#include <slimtrim/core/random.hpp>
#include <slimtrim/core/thread_pool.hpp>
#include <slimtrim/tensor/buffer.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

namespace model_attention_test {

using namespace slimtrim;

namespace {

tensor<float, 2> normal(index_t n, index_t m, std::uint64_t stream, double size = 1) {
  tensor<float, 2> x(n, m);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < m; ++j)
      x(i, j) = static_cast<float>(size * normal_at(4, stream, static_cast<std::uint64_t>(i * m + j)));
  return x;
}

// Token by token in double, with the whole row of scores at once.
tensor<double, 2> naive(attention_shape s, tensor<float, 2> const& q, tensor<float, 2> const& k,
                        tensor<float, 2> const& v, index_t first) {
  tensor<double, 2> z(q.extent(0), q.extent(1));
  z.fill(0);
  for (index_t t = 0; t < q.extent(0); ++t)
    for (index_t h = 0; h < s.heads; ++h) {
      index_t const g = h * s.key_value_heads / s.heads;
      std::vector<double> p;
      double largest = -1e300, sum = 0;
      for (index_t j = 0; j <= first + t; ++j) {
        double score = 0;
        for (index_t d = 0; d < s.head_dim; ++d)
          score += static_cast<double>(q(t, h * s.head_dim + d)) * static_cast<double>(k(j, g * s.head_dim + d));
        p.push_back(score / std::sqrt(static_cast<double>(s.head_dim)));
        largest = std::max(largest, p.back());
      }
      for (double& each : p) sum += each = std::exp(each - largest);
      for (std::size_t j = 0; j < p.size(); ++j)
        for (index_t d = 0; d < s.head_dim; ++d)
          z(t, h * s.head_dim + d) +=
              p[j] / sum * static_cast<double>(v(static_cast<index_t>(j), g * s.head_dim + d));
    }
  return z;
}

template <class B>
void compare(B const& backend, attention_shape s, index_t tokens, index_t first, double size) {
  CAPTURE(tokens);
  CAPTURE(first);
  auto const q = normal(tokens, s.heads * s.head_dim, 1, size);
  auto const k = normal(first + tokens, s.key_value_heads * s.head_dim, 2, size);
  auto const v = normal(first + tokens, s.key_value_heads * s.head_dim, 3);
  tensor<float, 2> z(tokens, s.heads * s.head_dim);
  causal_attention(backend, s, q.view(), k.view(), v.view(), first, z.view());
  auto const expected = naive(s, q, k, v, first);
  double worst = 0;
  for (index_t i = 0; i < z.extent(0); ++i)
    for (index_t j = 0; j < z.extent(1); ++j)
      worst = std::max(worst, std::abs(static_cast<double>(z(i, j)) - expected(i, j)));
  // Scores of size |q||k| / sqrt(d) carry float errors of 1e-7 of their size, which exp turns into relative ones.
  CHECK(worst < 2e-6 * (1 + size * size * static_cast<double>(s.head_dim)));
}

}  // namespace

TEST_CASE("equals attention written token by token") {
  eigen_backend const eigen;
  compare(eigen, {4, 2, 8}, 1, 0, 1);
  compare(eigen, {4, 2, 8}, 32, 0, 1);
  compare(eigen, {3, 3, 6}, 33, 0, 1);
  compare(eigen, {6, 2, 4}, 150, 0, 1);
  compare(eigen, {2, 1, 4}, 300, 17, 1);
  compare(eigen, {2, 1, 4}, 1, 299, 1);
  compare(eigen, {2, 1, 4}, 5, 128, 1);
  compare(eigen, {4, 2, 8}, 140, 0, 8);  // peaked: the running maximum moves by much
  compare(reference_backend(), {4, 2, 6}, 40, 3, 1);
}

TEST_CASE("the first token returns its value; equal keys average") {
  eigen_backend const backend;
  attention_shape const s{2, 1, 4};
  auto const q = normal(200, 8, 1);
  tensor<float, 2> k(200, 4), v(200, 4), z(200, 8);
  k.fill(0.5F);
  for (index_t i = 0; i < 200; ++i)
    for (index_t j = 0; j < 4; ++j) v(i, j) = static_cast<float>(i);
  causal_attention(backend, s, q.view(), k.view(), v.view(), 0, z.view());
  for (index_t t = 0; t < 200; ++t) CHECK(z(t, 5) == doctest::Approx(static_cast<double>(t) / 2).epsilon(1e-5));
}

TEST_CASE("any executor gives the same bits") {
  attention_shape const s{4, 2, 8};
  auto const q = normal(130, 32, 1), k = normal(130, 16, 2), v = normal(130, 16, 3);
  tensor<float, 2> a(130, 32), b(130, 32);
  thread_pool pool(3);
  causal_attention(eigen_backend(), s, q.view(), k.view(), v.view(), 0, a.view());
  causal_attention(eigen_backend(pool), s, q.view(), k.view(), v.view(), 0, b.view());
  CHECK(std::memcmp(a.view().data, b.view().data, 130 * 32 * sizeof(float)) == 0);
}

TEST_CASE("extents are checked") {
  tensor<float, 2> q(3, 8), k(3, 4), v(3, 4), z(3, 8);
  eigen_backend const b;
  CHECK_THROWS_AS(causal_attention(b, {2, 1, 4}, q.view(), k.view(), v.view(), 1, z.view()), error);
  CHECK_THROWS_AS(causal_attention(b, {2, 2, 4}, q.view(), k.view(), v.view(), 0, z.view()), error);
  CHECK_THROWS_AS(causal_attention(b, {3, 1, 4}, q.view(), k.view(), v.view(), 0, z.view()), error);
}

}  // namespace model_attention_test
