// Many tokens a sequence against the plain formula: from the start and behind others, odd lengths and dimensions.
#include "cuda/attention_reference.hpp"

#include <slimtrim/cuda/attention_many.cuh>

namespace cuda_attention_many_test {

using namespace slimtrim;
using cuda_tests::attention_case;
using cuda_tests::check_head;
using cuda_tests::check_padding;
using cuda_tests::host_cache;
using cuda_tests::padding;
using cuda_tests::random_elements;

namespace {

void check_many(attention_case const& c) {
  cuda_tests::device_memory device;
  auto const sequences = static_cast<index_t>(c.first.size());
  index_t const tokens = sequences * c.rows, queries = c.heads * c.dim, pitch = queries + padding;
  cuda::head_layout const layout{c.heads, c.key_value_heads, c.dim, 0, 0};
  host_cache const cache(c, [&](index_t s) { return c.first[static_cast<std::size_t>(s)] + c.rows; });
  auto const q = random_elements(tokens * pitch, 1, 2);
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

TEST_CASE("attention_many: many tokens, from the start and behind others") {
  check_many({2, 1, 32, 70, 70, {0}});
  check_many({2, 2, 128, 17, 90, {0, 73}});
  check_many({4, 2, 64, 64, 64, {0}});
  check_many({2, 1, 8, 130, 140, {10}});
}

TEST_CASE("attention_many: no sequences, one row, 17 rows behind others") {
  check_many({2, 1, 16, 3, 4, {}});
  check_many({1, 1, 8, 1, 1, {0}});
  check_many({3, 3, 40, 1, 65, {64}});
  check_many({4, 1, 24, 17, 81, {64, 0}});
}

TEST_CASE("attention_many: one visible position answers its value, whatever the score") {
  cuda_tests::device_memory device;
  index_t const dim = 8, rows = 5;
  // Row 0 sees position 0 alone, rows behind it one that outweighs all others: exp(-1000) is zero in float.
  std::vector<bfloat16> keys(rows * dim, bfloat16(0.0F)), values = keys, q(rows * dim, bfloat16(0.0F));
  for (std::size_t r = 0; r < 5; ++r) {
    q[8 * r] = bfloat16(1000.0F * std::sqrt(8.0F));
    keys[8 * r] = bfloat16(r == 2 ? 1.0F : -1.0F);
    for (std::size_t d = 0; d < 8; ++d) values[8 * r + d] = bfloat16(static_cast<float>(10 * r + d));
  }
  std::int32_t const first = 0;
  auto const Z = device.matrix<bfloat16>(rows, dim);
  cuda::attention_many<bfloat16>(
      device.backend().on(), {1, 1, dim, 0, 0},
      device_matrix<bfloat16 const>(device.keep<bfloat16>(q.data(), rows * dim), rows, dim),
      {device.keep<bfloat16>(keys.data(), rows * dim), device.keep<bfloat16>(values.data(), rows * dim), rows, dim},
      {device.keep<std::int32_t>(&first, 1), rows}, Z);
  auto const found = device.download<bfloat16>(Z);
  for (std::size_t d = 0; d < 8; ++d) {
    CHECK(static_cast<float>(found[d]) == static_cast<float>(d));
    for (std::size_t r = 2; r < 5; ++r) CHECK(static_cast<float>(found[8 * r + d]) == static_cast<float>(20 + d));
    // Two equal scores: the mean, exact in bfloat16 below 256.
    CHECK(static_cast<float>(found[8 + d]) == static_cast<float>(5 + d));
  }
}

TEST_CASE("attention_many: what does not fit together is refused") {
  cuda_tests::device_memory device;
  auto& on = device.backend().on();
  auto const Q = device.matrix<bfloat16>(4, 32);
  auto const many = [&](cuda::head_layout const& heads, device_matrix<bfloat16> q, device_matrix<bfloat16> z,
                        index_t rows, index_t width = 16) {
    cuda::attention_many<bfloat16>(on, heads, as_const(q), {nullptr, nullptr, 64, width}, {nullptr, rows}, z);
  };
  cuda::head_layout const layout{2, 1, 16, 0, 0};
  CHECK_THROWS_WITH_AS(many({2, 1, 12, 0, 0}, Q, Q, 2),
                       "cuda::attention_many: head_dim: expected a multiple of 8 up to 128", error);
  CHECK_THROWS_WITH_AS(many({2, 1, 136, 0, 0}, Q, Q, 2),
                       "cuda::attention_many: head_dim: expected a multiple of 8 up to 128", error);
  CHECK_THROWS_WITH_AS(many(layout, Q, Q, 3), "cuda::attention_many: rows: expected whole sequences", error);
  CHECK_THROWS_WITH_AS(many(layout, Q, Q, 0), "cuda::attention_many: rows: expected whole sequences", error);
  CHECK_THROWS_WITH_AS(many(layout, Q, rows(Q, 0, 2), 2), "cuda::attention_many: rows: expected whole sequences",
                       error);
  CHECK_THROWS_WITH_AS(many(layout, Q, transposed(device.matrix<bfloat16>(32, 4)), 2),
                       "cuda::attention_many: Q, Z: expected contiguous rows", error);
  CHECK_THROWS_WITH_AS(many(layout, Q, Q, 2, 12), "cuda::attention_many: Q, Z: expected contiguous rows", error);
}

}  // namespace cuda_attention_many_test
