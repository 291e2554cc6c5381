// Weights and inputs for the tests of slimming: correlated inputs whose channels differ in size, as in language models.
#pragma once

#include <slimtrim/core/random.hpp>
#include <slimtrim/tensor/buffer.hpp>

#include <cmath>
#include <cstdint>

namespace slimtrim_test {

using slimtrim::index_t;
using slimtrim::matrix;

inline matrix<float> random_weight(index_t n, index_t c, std::uint64_t seed) {
  matrix<float> W(n, c);
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < c; ++j)
      W(i, j) = static_cast<float>(0.05 * slimtrim::normal_at(seed, static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(j)));
  return W;
}

/// [tokens, c]: a few shared directions plus noise, channel sizes from 0.1 to about 10.
inline matrix<float> random_input(index_t tokens, index_t c, std::uint64_t seed) {
  matrix<float> X(tokens, c);
  auto const u = [](index_t i) { return static_cast<std::uint64_t>(i); };
  for (index_t t = 0; t < tokens; ++t)
    for (index_t j = 0; j < c; ++j) {
      double value = 0.5 * slimtrim::normal_at(seed, u(t), u(j));
      for (index_t d = 0; d < 6; ++d)
        value += 0.6 * slimtrim::normal_at(seed + 1, u(t), u(d)) * slimtrim::normal_at(seed + 2, u(d), u(j));
      X(t, j) = static_cast<float>(value * std::exp(slimtrim::normal_at(seed + 3, 0, u(j))));
    }
  return X;
}

/// Xᵀ X in double, rounded to float.
inline matrix<float> gram_of(matrix<float> const& X) {
  index_t const c = X.extent(1);
  matrix<float> H(c, c);
  for (index_t i = 0; i < c; ++i)
    for (index_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (index_t t = 0; t < X.extent(0); ++t) sum += static_cast<double>(X(t, i)) * static_cast<double>(X(t, j));
      H(i, j) = H(j, i) = static_cast<float>(sum);
    }
  return H;
}

/// sum over tokens of ||(W - Q) x||^2, by pushing every token through.
template <class Q>
double output_error(matrix<float> const& W, Q const& q, matrix<float> const& X) {
  double sum = 0;
  for (index_t t = 0; t < X.extent(0); ++t)
    for (index_t i = 0; i < W.extent(0); ++i) {
      double dot = 0;
      for (index_t j = 0; j < W.extent(1); ++j)
        dot += (static_cast<double>(W(i, j)) - static_cast<double>(q(i, j))) * static_cast<double>(X(t, j));
      sum += dot * dot;
    }
  return sum;
}

}  // namespace slimtrim_test
