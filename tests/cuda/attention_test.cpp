// Both attention kernels against the plain formula in double, over odd lengths, groups of heads and dimensions.
#include "cuda/support.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/attention_few.cuh>
#include <slimtrim/cuda/attention_many.cuh>
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

namespace cuda_attention_test {

using namespace slimtrim;

namespace {

struct attention_case {
  index_t heads, key_value_heads, dim, rows, capacity;
  std::vector<std::int32_t> first;
};

void check(attention_case const& c) {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  auto const sequences = static_cast<index_t>(c.first.size());
  index_t const tokens = sequences * c.rows, width = c.key_value_heads * c.dim, gap = 8;
  cuda::head_layout const layout{c.heads, c.key_value_heads, c.dim, 0, 0};
  auto const random = [](index_t count, std::uint64_t stream, double size) {
    std::vector<bfloat16> x;
    for (index_t i = 0; i < count; ++i)
      x.push_back(bfloat16(static_cast<float>(size * normal_at(4, stream, static_cast<std::uint64_t>(i)))));
    return x;
  };
  // Queries large enough that some weights are near one; what lies behind a text's end is NaN and must not matter.
  auto const q = random(tokens * (c.heads * c.dim + gap), 1, 2);
  auto keys = random(sequences * c.capacity * width, 2, 1), values = random(sequences * c.capacity * width, 3, 1);
  for (index_t s = 0; s < sequences; ++s)
    for (index_t p = c.first[static_cast<std::size_t>(s)] + c.rows; p < c.capacity; ++p)
      for (index_t j = 0; j < width; ++j) {
        auto const at = static_cast<std::size_t>((s * c.capacity + p) * width + j);
        keys[at] = values[at] = bfloat16(std::numeric_limits<float>::quiet_NaN());
      }
  device_matrix<bfloat16 const> const Q(device.keep<bfloat16>(q.data(), static_cast<index_t>(q.size())), tokens,
                                        c.heads * c.dim + gap);
  cuda::cache_view<bfloat16> const cache{device.keep<bfloat16>(keys.data(), static_cast<index_t>(keys.size())),
                                         device.keep<bfloat16>(values.data(), static_cast<index_t>(values.size())),
                                         c.capacity, width};
  std::int32_t const* const first = device.keep<std::int32_t>(c.first.data(), sequences);
  auto const Z = device.matrix<bfloat16>(tokens, c.heads * c.dim + gap);
  std::vector<std::vector<bfloat16>> results;
  if (c.rows == 1) {
    cuda::attention_workspace const work(on, sequences, layout, c.capacity);
    for (int again = 0; again < 2; ++again) cuda::attention_few<bfloat16>(on, layout, Q, cache, first, work, Z);
    results.push_back(device.download<bfloat16>(Z));
  }
  auto const other = device.matrix<bfloat16>(tokens, c.heads * c.dim + gap);
  cuda::attention_many<bfloat16>(on, layout, Q, cache, {first, c.rows}, other);
  results.push_back(device.download<bfloat16>(other));
  device.backend().synchronise();
  CAPTURE(c.rows);
  CAPTURE(c.dim);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t h = 0; h < c.heads; ++h) {
      index_t const s = t / c.rows, seen = c.first[static_cast<std::size_t>(s)] + t % c.rows + 1;
      index_t const column = h / (c.heads / c.key_value_heads) * c.dim;
      auto const at = [&](std::vector<bfloat16> const& x, index_t p, index_t d) {
        return static_cast<double>(
            static_cast<float>(x[static_cast<std::size_t>((s * c.capacity + p) * width + column + d)]));
      };
      std::vector<double> weights;
      double largest = -1e300, sum = 0;
      for (index_t p = 0; p < seen; ++p) {
        double score = 0;
        for (index_t d = 0; d < c.dim; ++d)
          score += static_cast<double>(
                       static_cast<float>(q[static_cast<std::size_t>(t * (c.heads * c.dim + gap) + h * c.dim + d)])) *
                   at(keys, p, d);
        weights.push_back(score / std::sqrt(static_cast<double>(c.dim)));
        largest = std::max(largest, weights.back());
      }
      for (double& w : weights) sum += w = std::exp(w - largest);
      for (index_t d = 0; d < c.dim; ++d) {
        double expected = 0, size = 0;
        for (index_t p = 0; p < seen; ++p) {
          expected += weights[static_cast<std::size_t>(p)] / sum * at(values, p, d);
          size += weights[static_cast<std::size_t>(p)] / sum * std::abs(at(values, p, d));
        }
        for (auto const& found : results) {
          double const value = static_cast<double>(
              static_cast<float>(found[static_cast<std::size_t>(t * (c.heads * c.dim + gap) + h * c.dim + d)]));
          // Each weight may be rounded to 8 bits (2^-8 of it at most), and so is the result.
          REQUIRE(std::abs(value - expected) <= 0.0039063 * (size + std::abs(expected)) + 1e-4 * size);
        }
      }
    }
  for (auto const& found : results)
    for (index_t t = 0; t < tokens; ++t)
      for (index_t j = c.heads * c.dim; j < c.heads * c.dim + gap; ++j)
        REQUIRE(found[static_cast<std::size_t>(t * (c.heads * c.dim + gap) + j)].bits == 0);
}

}  // namespace

TEST_CASE("attention: one token a sequence, over a context of several chunks") {
  check({4, 1, 128, 1, 200, {0, 63, 64, 199}});
  check({4, 2, 32, 1, 70, {69}});
  check({3, 3, 64, 1, 130, {5, 129}});
  check({8, 1, 8, 1, 66, {65}});
}

TEST_CASE("attention: many tokens, from the start and behind others") {
  check({2, 1, 32, 70, 70, {0}});
  check({2, 2, 128, 17, 90, {0, 73}});
  check({4, 2, 64, 64, 64, {0}});
  check({2, 1, 8, 130, 140, {10}});
}

TEST_CASE("attention: shapes that do not fit are refused") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  auto const Q = device.matrix<bfloat16>(2, 32);
  cuda::cache_view<bfloat16> const cache{nullptr, nullptr, 64, 16};
  cuda::attention_workspace const work(on, 1, {2, 1, 16, 0, 0}, 64);
  CHECK_THROWS_AS(cuda::attention_few<bfloat16>(on, {2, 1, 16, 0, 0}, as_const(Q), cache, nullptr, work, Q), error);
  CHECK_THROWS_AS(cuda::attention_many<bfloat16>(on, {2, 1, 12, 0, 0}, as_const(Q), cache, {nullptr, 2}, Q), error);
  CHECK_THROWS_AS(cuda::attention_many<bfloat16>(on, {2, 1, 16, 0, 0}, as_const(Q), cache, {nullptr, 3}, Q), error);
}

}  // namespace cuda_attention_test
