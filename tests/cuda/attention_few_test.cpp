// One token a sequence against the plain formula, with the host's rotary embedding in front: odd lengths, groups of
// heads and dimensions.
#include "cuda/attention_reference.hpp"

#include <slimtrim/cuda/attention_few.cuh>
#include <slimtrim/model/rope.hpp>

#include <algorithm>

namespace cuda_attention_few_test {

using namespace slimtrim;
using cuda_tests::attention_case;
using cuda_tests::check_head;
using cuda_tests::check_padding;
using cuda_tests::host_cache;
using cuda_tests::padding;

namespace {

void check_few(attention_case const& c) {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  auto const sequences = static_cast<index_t>(c.first.size());
  index_t const width = c.key_value_heads * c.dim, queries = c.heads * c.dim, pitch = queries + padding;
  cuda::head_layout const layout{c.heads, c.key_value_heads, c.dim, queries + padding, queries + padding + width};
  host_cache cache(c, [&](index_t s) { return index_t{c.first[static_cast<std::size_t>(s)]}; });
  tensor<float, 2> made(sequences, layout.value_column + width);
  // Queries large enough that some weights are near one.
  for (index_t s = 0; s < sequences; ++s)
    for (index_t j = 0; j < made.extent(1); ++j)
      made(s, j) = static_cast<float>((j < queries ? 2 : 1) *
                                      normal_at(4, 1, static_cast<std::uint64_t>(s * made.extent(1) + j)));
  auto const on_device = cache.upload(device);
  auto const frequencies = cuda::rotary_frequencies(c.dim, 10000, 1);
  device_matrix<bfloat16> Z;
  cuda::attention_workspace const work(on, sequences, layout, c.capacity);
  for (int again = 0; again < 2; ++again) {  // the second call finds the workspace as the first one left it
    Z = device.matrix<bfloat16>(sequences, pitch);
    cuda::attention_few<bfloat16>(on, layout, as_const(device.upload_matrix<float>(made)),
                                  device.keep<float>(frequencies.data(), c.dim / 2), on_device,
                                  device.keep<std::int32_t>(c.first.data(), sequences), work, Z);
  }
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

}  // namespace

TEST_CASE("attention_few: one token a sequence, over a context of several chunks") {
  check_few({4, 1, 128, 1, 200, {0, 63, 64, 199}});
  check_few({4, 2, 32, 1, 70, {69}});
  check_few({3, 3, 64, 1, 130, {5, 129}});
  check_few({8, 1, 8, 1, 66, {65}});
  check_few({2, 1, 256, 1, 65, {64}});
}

TEST_CASE("attention_few: beyond the capacity nothing is written") {
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

TEST_CASE("attention_few: no sequences, one position, 17 sequences") {
  check_few({4, 2, 16, 1, 3, {}});
  check_few({2, 1, 8, 1, 1, {0}});
  std::vector<std::int32_t> first;
  for (std::int32_t s = 0; s < 17; ++s) first.push_back(s * 5);
  check_few({8, 2, 24, 1, 90, first});
}

TEST_CASE("attention_few: a score that is far above all others, in an early chunk") {
  // The chunks behind it must shrink to nothing, not to NaN: exp(-300) is zero in float.
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  index_t const dim = 8, capacity = 130;
  cuda::head_layout const layout{1, 1, dim, dim, 2 * dim};
  std::vector<bfloat16> keys(static_cast<std::size_t>(capacity * dim), bfloat16(0.0F)), values = keys;
  keys[3 * 8 + 7] = bfloat16(300.0F * std::sqrt(8.0F));
  for (std::size_t i = 0; i < 8; ++i) values[3 * 8 + i] = bfloat16(static_cast<float>(i));
  std::vector<float> made(24, 0.0F), still(4, 0.0F);  // frequencies of zero: no rotation
  made[7] = 1;
  std::int32_t const first = 129;
  auto const Z = device.matrix<bfloat16>(1, dim);
  cuda::attention_workspace const work(on, 1, layout, capacity);
  cuda::attention_few<bfloat16>(on, layout, device_matrix<float const>(device.keep<float>(made.data(), 24), 1, 24),
                                device.keep<float>(still.data(), 4),
                                {device.keep<bfloat16>(keys.data(), capacity * dim),
                                 device.keep<bfloat16>(values.data(), capacity * dim), capacity, dim},
                                device.keep<std::int32_t>(&first, 1), work, Z);
  auto const found = device.download<bfloat16>(Z);
  for (std::size_t i = 0; i < 8; ++i) CHECK(static_cast<float>(found[i]) == static_cast<float>(i));
}

TEST_CASE("attention_few: places in shared memory are a permutation, and eight lanes' fours fill the banks") {
  for (int dim = 8; dim <= cuda::attention_few_shape::most_dim; dim += 8) {
    std::vector<bool> taken(static_cast<std::size_t>(dim));
    for (int j = 0; j < dim; ++j) {
      int const place = cuda::detail::place_of_element(j, dim);
      taken[static_cast<std::size_t>(place)] = true;
      CHECK(cuda::detail::element_of_place(place, dim) == j);
      CHECK(place % 4 == j % 4);
    }
    CHECK(std::find(taken.begin(), taken.end(), false) == taken.end());
    for (int first = 0; first + 64 <= dim; first += 64)  // the first fours of eight lanes
      for (int lane = 0; lane < 8; ++lane)
        CHECK(cuda::detail::place_of_element(first + 8 * lane, dim) % 32 == cuda::detail::place_of_element(first, dim) % 32 + 4 * lane);
  }
}

TEST_CASE("attention_few: what does not fit together is refused") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  auto const made = as_const(device.matrix<float>(2, 64));
  auto const Z = device.matrix<bfloat16>(2, 32);
  cuda::head_layout const layout{2, 1, 16, 32, 48};
  cuda::attention_workspace const work(on, 1, layout, 64);
  auto const few = [&](cuda::head_layout const& heads, device_matrix<float const> rows_made, index_t width = 16,
                       index_t capacity = 64) {
    cuda::attention_few<bfloat16>(on, heads, rows_made, nullptr, {nullptr, nullptr, capacity, width}, nullptr, work, Z);
  };
  auto const one = rows(made, 0, 1);
  CHECK_THROWS_WITH_AS(few({2, 1, 12, 32, 48}, one),
                       "cuda::attention_few: head_dim: expected a multiple of 8 up to 256", error);
  CHECK_THROWS_WITH_AS(few({2, 1, 264, 528, 792}, one),
                       "cuda::attention_few: head_dim: expected a multiple of 8 up to 256", error);
  CHECK_THROWS_WITH_AS(few({2, 1, 16, 16, 32}, one),
                       "cuda::head_layout: made: expected rows of queries, keys and values", error);
  CHECK_THROWS_WITH_AS(few({2, 2, 16, 32, 64}, one), "cuda::head_layout: width of the cache: expected 32, found 16",
                       error);
  CHECK_THROWS_WITH_AS(few(layout, made), "cuda::attention_few: workspace: made for another shape", error);
  CHECK_THROWS_WITH_AS(few(layout, one, 16, 128), "cuda::attention_few: workspace: made for another shape", error);
  CHECK_THROWS_WITH_AS(few(layout, one), "cuda::attention_few: rows of the result: expected 1, found 2", error);
}

}  // namespace cuda_attention_few_test
