// Both attention kernels against the plain formula in double, over odd lengths, groups of heads and dimensions; for one
// token a sequence with the host's rotary embedding in front.
#include "cuda/support.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/attention_few.cuh>
#include <slimtrim/cuda/attention_many.cuh>
#include <slimtrim/model/rope.hpp>
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

std::vector<bfloat16> random(index_t count, std::uint64_t stream, double size) {
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
      : keys(random(static_cast<index_t>(c.first.size()) * c.capacity * c.key_value_heads * c.dim, 2, 1)),
        values(random(static_cast<index_t>(keys.size()), 3, 1)),
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
  [[nodiscard]] cuda::cache_view<bfloat16> upload(cuda_tests::device_memory& device) const {
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

void check_padding(std::vector<bfloat16> const& found, index_t width, index_t pitch) {
  for (std::size_t i = 0; i < found.size(); ++i)
    if (static_cast<index_t>(i) % pitch >= width) REQUIRE(found[i].bits == 0);
}

constexpr index_t gap = 8;

void check_few(attention_case const& c) {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  auto const sequences = static_cast<index_t>(c.first.size());
  index_t const width = c.key_value_heads * c.dim, queries = c.heads * c.dim, pitch = queries + gap;
  cuda::head_layout const layout{c.heads, c.key_value_heads, c.dim, queries + gap, queries + gap + width};
  host_cache cache(c, [&](index_t s) { return index_t{c.first[static_cast<std::size_t>(s)]}; });
  tensor<float, 2> made(sequences, layout.value_column + width);
  // Queries large enough that some weights are near one.
  for (index_t s = 0; s < sequences; ++s)
    for (index_t j = 0; j < made.extent(1); ++j)
      made(s, j) = static_cast<float>((j < queries ? 2 : 1) *
                                      normal_at(4, 1, static_cast<std::uint64_t>(s * made.extent(1) + j)));
  auto const on_device = cache.upload(device);
  auto const frequencies = cuda::rotary_frequencies(c.dim, 10000, 1);
  auto const Z = device.matrix<bfloat16>(sequences, pitch);
  cuda::attention_workspace const work(on, sequences, layout, c.capacity);
  for (int again = 0; again < 2; ++again)
    cuda::attention_few<bfloat16>(on, layout, as_const(device.upload_matrix<float>(made)),
                                  device.keep<float>(frequencies.data(), c.dim / 2), on_device,
                                  device.keep<std::int32_t>(c.first.data(), sequences), work, Z);
  device.backend().synchronise();
  auto const found = device.download<bfloat16>(Z);

  rotary_table table;
  table.prepare(std::vector<index_t>(c.first.begin(), c.first.end()), c.dim, 10000, 1);
  tensor<float, 2> q(sequences, queries), k(sequences, width);
  for (index_t s = 0; s < sequences; ++s) {
    for (index_t j = 0; j < queries; ++j) q(s, j) = made(s, j);
    for (index_t j = 0; j < width; ++j) k(s, j) = made(s, layout.key_column + j);
  }
  table.rotate(nullptr, q.view());
  table.rotate(nullptr, k.view());
  index_t const size = static_cast<index_t>(cache.keys.size());
  auto const keys = device.download<bfloat16>(device_vector<bfloat16>(on_device.keys, size));
  auto const values = device.download<bfloat16>(device_vector<bfloat16>(on_device.values, size));
  for (index_t s = 0; s < sequences; ++s)
    for (index_t j = 0; j < width; ++j) {
      index_t const p = c.first[static_cast<std::size_t>(s)];
      // One rounding, of numbers that differ by the last bits of a float.
      REQUIRE(std::abs(static_cast<float>(keys[cache.at(s, p, j)]) - k(s, j)) <=
              0.0039063F * std::abs(k(s, j)) + 1e-5F);
      REQUIRE(values[cache.at(s, p, j)].bits == bfloat16(made(s, layout.value_column + j)).bits);
      cache.keys[cache.at(s, p, j)] = keys[cache.at(s, p, j)];
      cache.values[cache.at(s, p, j)] = values[cache.at(s, p, j)];
    }
  CAPTURE(c.dim);
  for (index_t s = 0; s < sequences; ++s) {
    index_t const behind = c.first[static_cast<std::size_t>(s)] + 1;
    if (behind < c.capacity) REQUIRE(keys[cache.at(s, behind, 0)].bits == cache.keys[cache.at(s, behind, 0)].bits);
    for (index_t h = 0; h < c.heads; ++h)
      check_head(
          c, cache, s, h, [&](index_t d) { return static_cast<double>(q(s, h * c.dim + d)); }, found, pitch);
  }
  check_padding(found, queries, pitch);
}

void check_many(attention_case const& c) {
  cuda_tests::device_memory device;
  auto const sequences = static_cast<index_t>(c.first.size());
  index_t const tokens = sequences * c.rows, queries = c.heads * c.dim, pitch = queries + gap;
  cuda::head_layout const layout{c.heads, c.key_value_heads, c.dim, 0, 0};
  host_cache const cache(c, [&](index_t s) { return c.first[static_cast<std::size_t>(s)] + c.rows; });
  auto const q = random(tokens * pitch, 1, 2);
  device_matrix<bfloat16 const> const Q(device.keep<bfloat16>(q.data(), static_cast<index_t>(q.size())), tokens, pitch);
  auto const Z = device.matrix<bfloat16>(tokens, pitch);
  cuda::attention_many<bfloat16>(device.backend().on(), layout, Q, cache.upload(device),
                                 {device.keep<std::int32_t>(c.first.data(), sequences), c.rows}, Z);
  device.backend().synchronise();
  auto const found = device.download<bfloat16>(Z);
  CAPTURE(c.rows);
  CAPTURE(c.dim);
  for (index_t t = 0; t < tokens; ++t)
    for (index_t h = 0; h < c.heads; ++h)
      check_head(
          c, cache, t, h,
          [&](index_t d) {
            return static_cast<double>(static_cast<float>(q[static_cast<std::size_t>(t * pitch + h * c.dim + d)]));
          },
          found, pitch);
  check_padding(found, queries, pitch);
}

}  // namespace

TEST_CASE("attention: one token a sequence, over a context of several chunks") {
  check_few({4, 1, 128, 1, 200, {0, 63, 64, 199}});
  check_few({4, 2, 32, 1, 70, {69}});
  check_few({3, 3, 64, 1, 130, {5, 129}});
  check_few({8, 1, 8, 1, 66, {65}});
  check_few({2, 1, 256, 1, 65, {64}});
}

TEST_CASE("attention: beyond the capacity nothing is written") {
  cuda_tests::device_memory device;
  cuda::head_layout const layout{1, 1, 8, 8, 16};
  auto const memory = device.vector<bfloat16>(16);
  cuda::cache_view<bfloat16> const cache{memory.data, memory.data, 2, 8};
  std::int32_t const first = 2;
  auto const frequencies = cuda::rotary_frequencies(8, 10000, 1);
  cuda::attention_workspace const work(device.backend().on(), 1, layout, 2);
  cuda::attention_few<bfloat16>(device.backend().on(), layout, as_const(device.matrix<float>(1, 24)),
                                device.keep<float>(frequencies.data(), 4), cache, device.keep<std::int32_t>(&first, 1),
                                work, device.matrix<bfloat16>(1, 8));
  for (bfloat16 const each : device.download<bfloat16>(memory)) CHECK(each.bits == 0xffff);
}

TEST_CASE("attention: many tokens, from the start and behind others") {
  check_many({2, 1, 32, 70, 70, {0}});
  check_many({2, 2, 128, 17, 90, {0, 73}});
  check_many({4, 2, 64, 64, 64, {0}});
  check_many({2, 1, 8, 130, 140, {10}});
}

TEST_CASE("attention: shapes that do not fit are refused") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  auto const Q = device.matrix<bfloat16>(2, 32);
  auto const made = as_const(device.matrix<float>(2, 64));
  cuda::cache_view<bfloat16> const cache{nullptr, nullptr, 64, 16};
  cuda::head_layout const layout{2, 1, 16, 32, 48};
  cuda::attention_workspace const work(on, 1, layout, 64);
  auto const few = [&](cuda::head_layout const& heads, device_matrix<float const> rows_made) {
    cuda::attention_few<bfloat16>(on, heads, rows_made, nullptr, cache, nullptr, work, Q);
  };
  CHECK_THROWS_AS(few(layout, made), error);                          // a workspace for one sequence
  CHECK_THROWS_AS(few({2, 1, 16, 16, 32}, rows(made, 0, 1)), error);  // keys inside the queries
  CHECK_THROWS_AS(few({2, 2, 16, 32, 64}, rows(made, 0, 1)), error);  // another cache
  CHECK_THROWS_AS(cuda::attention_many<bfloat16>(on, {2, 1, 12, 0, 0}, as_const(Q), cache, {nullptr, 2}, Q), error);
  CHECK_THROWS_AS(cuda::attention_many<bfloat16>(on, {2, 1, 16, 0, 0}, as_const(Q), cache, {nullptr, 3}, Q), error);
}

}  // namespace cuda_attention_test
