// Rotation and append against the host's rotary_table, and which rows of the cache are written.
#include "cuda/support.hpp"

#include <slimtrim/core/random.hpp>
#include <slimtrim/cuda/rotary.cuh>
#include <slimtrim/model/rope.hpp>
#include <doctest/doctest.h>

#include <cmath>

namespace cuda_rotary_test {

using namespace slimtrim;

namespace {

void check(index_t heads, index_t key_value_heads, index_t dim, index_t rows, std::vector<std::int32_t> const& first,
           double theta) {
  cuda_tests::device_memory device;
  auto const sequences = static_cast<index_t>(first.size());
  index_t const tokens = sequences * rows, width = key_value_heads * dim, gap = 8, capacity = 40;
  cuda::head_layout const layout{heads, key_value_heads, dim, heads * dim + gap, heads * dim + width + 2 * gap};
  tensor<float, 2> made(tokens, layout.value_column + width);
  for (index_t i = 0; i < made.view().size(); ++i)
    made.view().data[i] = static_cast<float>(normal_at(2, 2, static_cast<std::uint64_t>(i)));
  auto const frequencies = cuda::rotary_frequencies(dim, theta, 2.0);
  auto const Q = device.matrix<bfloat16>(tokens, heads * dim + gap);
  auto const keys = device.vector<bfloat16>(sequences * capacity * width),
             values = device.vector<bfloat16>(sequences * capacity * width);
  cuda::cache_view<bfloat16> const cache{keys.data, values.data, capacity, width};
  cuda::sequence_rows const of{device.keep<std::int32_t>(first.data(), sequences), rows};
  cuda::rotate_and_append<bfloat16>(device.backend().on(), layout, as_const(device.upload_matrix<float>(made)),
                                    device.keep<float>(frequencies.data(), dim / 2), of, Q, cache);
  auto const q = device.download<bfloat16>(Q), k = device.download<bfloat16>(keys),
             v = device.download<bfloat16>(values);

  std::vector<index_t> positions;
  for (index_t t = 0; t < tokens; ++t) positions.push_back(first[static_cast<std::size_t>(t / rows)] + t % rows);
  rotary_table table;
  table.prepare(positions, dim, theta, 2.0);
  tensor<float, 2> host_q(tokens, heads * dim), host_k(tokens, width);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t j = 0; j < heads * dim; ++j) host_q(t, j) = made(t, j);
    for (index_t j = 0; j < width; ++j) host_k(t, j) = made(t, layout.key_column + j);
  }
  table.rotate(nullptr, host_q.view());
  table.rotate(nullptr, host_k.view());
  // One rounding to 8 bits, of sums of two terms of size 1 whose cosines differ by the last bits of a float.
  auto const close = [](bfloat16 found, float expected) {
    return std::abs(static_cast<float>(found) - expected) <= 0.0039063F * std::abs(expected) + 1e-5F;
  };
  std::vector<char> written(static_cast<std::size_t>(sequences * capacity), 0);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t j = 0; j < heads * dim + gap; ++j) {
      bfloat16 const found = q[static_cast<std::size_t>(t * (heads * dim + gap) + j)];
      if (j < heads * dim)
        REQUIRE(close(found, host_q(t, j)));
      else
        REQUIRE(found.bits == 0);
    }
    index_t const place = t / rows * capacity + positions[static_cast<std::size_t>(t)];
    written[static_cast<std::size_t>(place)] = 1;
    for (index_t j = 0; j < width; ++j) {
      auto const at = static_cast<std::size_t>(place * width + j);
      REQUIRE(close(k[at], host_k(t, j)));
      REQUIRE(v[at].bits == bfloat16(made(t, layout.value_column + j)).bits);
    }
  }
  for (std::size_t place = 0; place < written.size(); ++place)
    if (written[place] == 0) REQUIRE(k[place * static_cast<std::size_t>(width)].bits == 0xffff);
}

}  // namespace

TEST_CASE("rotary: one row and several a sequence, at different positions") {
  check(4, 2, 32, 1, {0, 7, 39}, 10000);
  check(2, 1, 64, 5, {3, 0}, 1e6);
  check(2, 2, 8, 3, {11}, 10000);
}

TEST_CASE("rotary: nothing is written behind the capacity, and shapes are checked") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  auto const made = as_const(device.matrix<float>(1, 24));
  auto const Q = device.matrix<bfloat16>(1, 8);
  auto const memory = device.vector<bfloat16>(16);
  cuda::cache_view<bfloat16> const cache{memory.data, memory.data, 2, 8};
  std::int32_t const first = 2;
  cuda::sequence_rows const of{device.keep<std::int32_t>(&first, 1), 1};
  float const frequencies[4] = {1, 1, 1, 1};
  float const* const f = device.keep<float>(frequencies, 4);
  cuda::rotate_and_append<bfloat16>(on, {1, 1, 8, 8, 16}, made, f, of, Q, cache);
  for (bfloat16 const each : device.download<bfloat16>(memory)) CHECK(each.bits == 0xffff);
  CHECK_THROWS_AS(cuda::rotate_and_append<bfloat16>(on, {1, 1, 8, 4, 16}, made, f, of, Q, cache), error);
  CHECK_THROWS_AS(cuda::rotate_and_append<bfloat16>(on, {1, 2, 8, 8, 16}, made, f, of, Q, cache), error);
  CHECK_THROWS_AS(static_cast<void>(cuda::rotary_frequencies(7, 10000, 1)), error);
}

}  // namespace cuda_rotary_test
