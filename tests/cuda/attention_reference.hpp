// Attention by the plain formula in double, over a cache in which whatever must not be read is NaN; for the tests of
// both kernels.
#pragma once

#include "cuda/support.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/rotary.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace cuda_tests {

struct attention_case {
  index_t heads, key_value_heads, dim, rows, capacity;
  std::vector<std::int32_t> first;
};

inline std::vector<bfloat16> random_elements(index_t count, std::uint64_t stream, double size) {
  std::vector<bfloat16> x;
  for (index_t i = 0; i < count; ++i)
    x.push_back(bfloat16(static_cast<float>(size * normal_at(4, stream, static_cast<std::uint64_t>(i)))));
  return x;
}

// A cache in which everything from `known(sequence)` on is NaN, which must not matter.
struct host_cache {
  std::vector<bfloat16> keys, values;
  index_t capacity, width;
  template <class Known>
  host_cache(attention_case const& c, Known const& known)
      : keys(random_elements(static_cast<index_t>(c.first.size()) * c.capacity * c.key_value_heads * c.dim, 2, 1)),
        values(random_elements(static_cast<index_t>(keys.size()), 3, 1)),
        capacity(c.capacity),
        width(c.key_value_heads * c.dim) {
    for (index_t s = 0; s < static_cast<index_t>(c.first.size()); ++s)
      for (index_t p = known(s); p < capacity; ++p)
        for (index_t j = 0; j < width; ++j)
          keys[at(s, p, j)] = values[at(s, p, j)] = bfloat16(std::numeric_limits<float>::quiet_NaN());
  }
  [[nodiscard]] std::size_t at(index_t s, index_t p, index_t j) const {
    return static_cast<std::size_t>((s * capacity + p) * width + j);
  }
  [[nodiscard]] cuda::cache_view<bfloat16> upload(device_memory& device) const {
    return {device.keep<bfloat16>(keys.data(), static_cast<index_t>(keys.size())),
            device.keep<bfloat16>(values.data(), static_cast<index_t>(values.size())), capacity, width};
  }
};

// Z of row t, head h, found against softmax(q K) V in double. q(d): the query.
template <class Query>
void check_head(attention_case const& c, host_cache const& cache, index_t t, index_t h, Query const& q,
                std::vector<bfloat16> const& found, index_t pitch) {
  index_t const s = t / c.rows, seen = c.first[static_cast<std::size_t>(s)] + t % c.rows + 1;
  index_t const column = h / (c.heads / c.key_value_heads) * c.dim;
  auto const value = [&](std::vector<bfloat16> const& x, index_t p, index_t d) {
    return static_cast<double>(static_cast<float>(x[cache.at(s, p, column + d)]));
  };
  std::vector<double> weights;
  double largest = -1e300, sum = 0;
  for (index_t p = 0; p < seen; ++p) {
    double score = 0;
    for (index_t d = 0; d < c.dim; ++d) score += q(d) * value(cache.keys, p, d);
    weights.push_back(score / std::sqrt(static_cast<double>(c.dim)));
    largest = std::max(largest, weights.back());
  }
  for (double& w : weights) sum += w = std::exp(w - largest);
  for (index_t d = 0; d < c.dim; ++d) {
    double expected = 0, size = 0;
    for (index_t p = 0; p < seen; ++p) {
      double const part = weights[static_cast<std::size_t>(p)] / sum * value(cache.values, p, d);
      expected += part;
      size += std::abs(part);
    }
    double const result =
        static_cast<double>(static_cast<float>(found[static_cast<std::size_t>(t * pitch + h * c.dim + d)]));
    // Each weight may be rounded to 8 bits (2^-8 of it at most), and so is the result.
    REQUIRE(std::abs(result - expected) <= 0.0039063 * (size + std::abs(expected)) + 1e-4 * size);
  }
}

inline void check_padding(std::vector<bfloat16> const& found, index_t width, index_t pitch) {
  for (std::size_t i = 0; i < found.size(); ++i)
    if (static_cast<index_t>(i) % pitch >= width) REQUIRE(found[i].bits == 0);
}

inline constexpr index_t padding = 8;  // columns behind the heads

}  // namespace cuda_tests
